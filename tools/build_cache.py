"""Keeps what compilers made, by content: a second build of equal sources copies instead of compiling.

    build_cache.py FOLDER COMPILER [ARGUMENT ...]     runs the compiler, or copies the object that it made before

setup.py puts this in front of the compiler where TENGRI_CACHE names a folder, and keeps Cython's C there too.

An object's name is the digest of everything that it depends on: the compiler, its arguments and the preprocessed
source. A header that changed or is missing is therefore seen, and a folder that is absent, damaged or used by several
builds at once does no harm: entries carry a checksum, and are written whole or not at all. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

CHECKSUM = 32
# Options of the preprocessor: what they do is in its output.
SEARCH = ("-I", "-D", "-U", "-isystem", "-iquote", "-idirafter", "-include")
# With these the object depends on more than text and arguments, or is not all that the compiler writes.
BEYOND = ("-M", "-march=native", "-mtune=native", "-mcpu=native", "-fprofile", "--coverage", "-ftest-coverage",
          "-save-temps", "--save-temps", "-specs", "-fplugin", "-gsplit", "-dump", "-fdump", "-x", "@")  # fmt: skip
# Besides PATH, which finds the compiler, these name the programs and folders that it uses.
VARIABLES = ("COMPILER_PATH", "GCC_EXEC_PREFIX", "LIBRARY_PATH", "SOURCE_DATE_EPOCH")


def digest(*parts: object) -> str:
    """A name for a list of values."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


def fetch(folder: Path, key: str) -> bytes | None:
    """What is stored under a key, or None; an entry that is not what was stored counts as missing."""
    path = folder / key[:2] / key[2:]
    try:
        data = path.read_bytes()
        if hashlib.sha256(data[CHECKSUM:]).digest() != data[:CHECKSUM]:
            return None
        os.utime(path)  # see prune
    except OSError:
        return None
    return data[CHECKSUM:]


def store(folder: Path, key: str, data: bytes) -> None:
    """Stores bytes under a key; a folder that cannot be written only costs the next build its time."""
    path = folder / key[:2] / key[2:]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        print(f"build cache: {folder} was not written: {error}", file=sys.stderr)


def prune(folder: Path, days: float = 7.0) -> None:
    """Removes what nothing has used for some days."""
    oldest = time.time() - days * 86_400
    for path in folder.glob("*/*"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:  # another build was quicker
            continue


def split(arguments: Sequence[str]) -> tuple[list[str], list[str], str, str] | None:
    """(code generation, preprocessor, source, output) of ``... -c SOURCE -o OUTPUT``; None for any other call."""
    flags, search, sources, output = [], [], [], ""
    compiles = False
    words = iter(arguments)
    for word in words:
        if word.startswith(BEYOND):
            return None
        if word == "-c":
            compiles = True
        elif word == "-o":
            output = next(words, "")
        elif word in SEARCH:
            search += [word, next(words, "")]
        elif word.startswith(SEARCH):
            search.append(word)
        elif word.startswith("-"):
            flags.append(word)
        else:
            sources.append(word)
    if not (compiles and output and len(sources) == 1 and sources[0].endswith(".c")):
        return None
    return flags, search, sources[0], output


def object_key(compiler: str, arguments: Sequence[str]) -> str | None:
    """The name of the object that a call makes, or None where it cannot be told."""
    parts = split(arguments)
    program = shutil.which(compiler)
    if parts is None or program is None:
        return None
    flags, search, source, _ = parts
    command = [compiler, *flags, *search, "-E", "-P", source]
    text = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if text.returncode != 0:
        return None
    facts = os.stat(program)
    # Debug information names folders, which the text does not.
    debug = [word for word in flags if word.startswith("-g")]
    where = [os.getcwd(), source, search] if debug and debug[-1] != "-g0" else []
    identity = (os.path.realpath(program), facts.st_size, facts.st_mtime_ns, [os.environ.get(v) for v in VARIABLES])
    return digest(identity, Path(source).name, flags, where, hashlib.sha256(text.stdout).hexdigest())


def main(arguments: Sequence[str]) -> int:
    """Command line: a folder, then the call of a compiler."""
    folder, command = Path(arguments[0]), list(arguments[1:])
    key = object_key(command[0], command[1:])
    if key is None:
        os.execvp(command[0], command)
    output = Path(command[command.index("-o") + 1])
    made = fetch(folder, key)
    if made is not None:
        # A new file: writing into the old one would change what is linked to it.
        output.unlink(missing_ok=True)
        output.write_bytes(made)
        return 0
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    sys.stdout.buffer.write(done.stdout)
    if done.returncode == 0 and not done.stdout:  # a warning is printed by every build
        store(folder, key, output.read_bytes())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
