"""Prepares the environments that the Makefile's targets run in. Standard library only.

    environment.py main [--extras nautilus,data]    .venv: packages, compiled extensions, the tengri command
    environment.py train [--optional]               .venv-train: PyTorch, which Nautilus cannot share
    environment.py main --with-train ...            both at once; without PyTorch it goes on

Each step leaves a stamp in the environment, so a second call costs a fraction of a second, and a changed source or
requirement repeats exactly the steps that depend on it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "build" / "environment.log"
CACHE = ROOT / "build" / "cache"  # what compilers made, by content: tools/build_cache.py
PACKAGE = "tengri_fast"

# The CPU build is asked for first: the plain name can bring gigabytes of GPU libraries along.
TORCH = "torch==2.13.0"
TORCH_CPU = f"{TORCH}+cpu"

NO_COMPILER = """\
A C compiler is needed and `{command}` {reason}. Install one, for example:
    Debian, Ubuntu    sudo apt install build-essential
    Fedora            sudo dnf install gcc make
    macOS             xcode-select --install
or name one that you have: CC=/path/to/cc make ..."""


class StepFailed(Exception):
    """A step could not be done; the text says why and what helps."""


# -- showing what happens ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Shows a line with the seconds that have passed; without a terminal, a sign of life every 30 seconds."""
    terminal = sys.stdout.isatty()
    done = threading.Event()
    start = time.monotonic()

    def tick() -> None:
        while not done.wait(1.0 if terminal else 30.0):
            seconds = time.monotonic() - start
            print(f"\r{text} {seconds:.0f} s" if terminal else f"{text} ... {seconds:.0f} s",
                  end="" if terminal else "\n", flush=True)  # fmt: skip

    print(text, end="" if terminal else "\n", flush=True)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if terminal:
            print(f"\r{text} {time.monotonic() - start:.0f} s", flush=True)


def run(command: Sequence[str | Path], failure: str, **variables: str) -> None:
    """Runs quietly, with ``variables`` added to the environment; on failure shows the end of the log."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {shlex.join(map(str, command))}\n")
        log.flush()
        start = log.tell()
        code = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        ).returncode
    if code != 0:
        with LOG.open(encoding="utf-8", errors="replace") as log:
            log.seek(start)
            tail = "".join(log.readlines()[-40:])
        raise StepFailed(f"{failure} (exit code {code}). The end of {LOG.relative_to(ROOT)}:\n\n{tail}")


# -- stamps ------------------------------------------------------------------------------------------------------------


def read_stamp(environment: Path) -> dict[str, object]:
    try:
        stamp = json.loads((environment / "tengri.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(environment: Path, **changes: object) -> None:
    path = environment / "tengri.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**read_stamp(environment), **changes}, indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(path)


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(extras: Sequence[str]) -> list[str]:
    """Requirement lines of the core, the build and ``extras``; extras that name other extras are followed."""
    settings = project()
    table = settings["project"]["optional-dependencies"]  # type: ignore[index]
    lines = [*settings["build-system"]["requires"], *settings["project"]["dependencies"]]  # type: ignore[index]
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop(0)
        if extra in seen:
            continue
        seen.add(extra)
        if extra not in table:
            raise StepFailed(f"pyproject.toml has no extra `{extra}`; it has: {', '.join(sorted(table))}")
        for line in table[extra]:
            if line.startswith(f"{PACKAGE}["):
                waiting += line[line.index("[") + 1 : line.index("]")].split(",")
            else:
                lines.append(line)
    return sorted(set(lines))


def sources_digest(requirements_digest: object) -> str:
    """Changes when an input of the build changes: a source, a switch, the compiler or a requirement."""
    files = [ROOT / "setup.py", ROOT / "pyproject.toml"]
    for folder, suffixes in (("csrc", {".c", ".h", ".def", ".inc"}), (PACKAGE, {".pyx", ".pxd"})):
        for parent, _, names in os.walk(ROOT / folder):
            files += [Path(parent, name) for name in names if Path(name).suffix in suffixes]
    facts = [(str(path.relative_to(ROOT)), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(files)]
    switches = sorted((k, v) for k, v in os.environ.items() if k.startswith("TENGRI_") or k in {"CC", "CFLAGS"})
    ignored = {"TENGRI_SHARED_DATA", "TENGRI_ISA", "TENGRI_TRAIN_PYTHON", "TENGRI_JOBS", "TENGRI_CACHE"}
    return digest(facts, [pair for pair in switches if pair[0] not in ignored], requirements_digest)


def metadata_digest() -> str:
    """Changes when the installed metadata must: scripts, version, names of extras."""
    return digest((ROOT / "pyproject.toml").read_bytes(), (ROOT / PACKAGE / "__init__.py").read_bytes())


# -- steps -------------------------------------------------------------------------------------------------------------


def check_compiler() -> None:
    command = shlex.split(os.environ.get("CC", "")) or [next(filter(shutil.which, ("cc", "gcc", "clang")), "cc")]
    shown = " ".join(command)
    if shutil.which(command[0]) is None:
        raise StepFailed(NO_COMPILER.format(command=shown, reason="is not on PATH"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "hello.c"
        source.write_text("#include <math.h>\nint main(void) { return (int)floor(0.5); }\n", encoding="utf-8")
        arguments = [*command, str(source), "-lm", "-o", str(source.with_suffix(""))]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            reason = "cannot build a program: " + (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise StepFailed(NO_COMPILER.format(command=shown, reason=reason))


def find_python(version: str, advise: bool) -> Path | None:
    """The interpreter that tools/find_python.sh finds, or None; with ``advise`` its advice goes to stderr."""
    command = ["sh", str(ROOT / "tools" / "find_python.sh"), version]
    # PYTHON chooses the interpreter of .venv; it must not stand in the way of another version.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=None if advise else subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env=variables,
        text=True,
        check=False,
    )
    return Path(result.stdout.strip()) if result.returncode == 0 else None


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def works(environment: Path) -> bool:
    python = python_of(environment)
    if not python.exists():
        return False
    return subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0


def create(environment: Path, base: Path | str, text: str) -> None:
    if works(environment):
        return
    with progress(text):
        if environment.exists():
            shutil.rmtree(environment)
        run([base, "-m", "venv", environment], f"`{base} -m venv` failed")


def pip_install(environment: Path) -> list[str | Path]:
    return [python_of(environment), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def install(environment: Path, lines: Sequence[str], text: str, key: str) -> None:
    """Installs requirement lines unless the stamp under ``key`` says that they are there."""
    have = digest(list(lines))
    if read_stamp(environment).get(key) == have:
        return
    with progress(text):
        run(
            # Python compiles what it imports; compiling every file of every package takes longer than copying them.
            [*pip_install(environment), "--no-compile", *lines],
            "installing packages failed",
        )
    write_stamp(environment, **{key: have})


def built_extensions_exist(environment: Path) -> bool:
    """True when the extensions that the last build recorded are still in the tree."""
    built = read_stamp(environment).get("extensions")
    return isinstance(built, list) and all((ROOT / str(name)).exists() for name in built)


def prepare_main(extras: Sequence[str]) -> None:
    environment = ROOT / ".venv"
    check_compiler()
    create(environment, sys.executable, "[1/4] creating the environment .venv")
    stamp = read_stamp(environment)
    known = stamp.get("extras")
    wanted = sorted({*extras, *(known if isinstance(known, list) else [])})
    lines = requirements(wanted)
    text = f"[2/4] installing packages for {', '.join(wanted) or 'the core'} (only once)"
    install(environment, lines, text, "packages")
    write_stamp(environment, extras=wanted)

    sources = sources_digest(digest(lines))
    if stamp.get("sources") != sources or not built_extensions_exist(environment):
        with progress("[3/4] compiling the C library and the extensions"):
            command = [python_of(environment), "setup.py", "--quiet", "build_ext", "--inplace"]
            run(command, "compiling failed", TENGRI_CACHE=os.environ.get("TENGRI_CACHE", str(CACHE)))
        names = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).glob("**/*.so"))
        write_stamp(environment, sources=sources, extensions=names)
    metadata = metadata_digest()
    if stamp.get("metadata") != metadata or not (environment / "bin" / "tengri").exists():
        with progress("[4/4] installing the tengri command"):
            # The extensions were compiled by the step before: a word that no name contains leaves them alone.
            run(
                [*pip_install(environment), "--no-deps", "--no-build-isolation", "--editable", "."],
                "installing tengri_fast failed",
                TENGRI_EXTENSIONS="/",
            )
        write_stamp(environment, metadata=metadata)


def prepare_train(optional: bool) -> None:
    """PyTorch has its own environment: its builds and Nautilus' do not share a Python version everywhere."""
    environment = ROOT / ".venv-train"
    if not works(environment):
        python = find_python("3.11", advise=not optional)
        if python is None:
            raise StepFailed("no Python 3.11 was found")
        create(environment, python, "[1/2] creating the environment .venv-train")
    lines = [line for line in requirements(["train"]) if not line.startswith(("torch", "optuna"))]
    text = "[2/2] installing PyTorch and its packages (only once)"
    try:
        install(environment, [*lines, TORCH_CPU], text, "packages")
    except StepFailed as error:
        if optional:
            raise StepFailed(
                f"{TORCH_CPU} could not be installed; {LOG.relative_to(ROOT)} says why (`make train-env` also accepts "
                "the build with GPU libraries)"
            ) from error
        install(environment, [*lines, TORCH], text, "packages")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prepares .venv or .venv-train.")
    commands = parser.add_subparsers(dest="command", required=True)
    main_parser = commands.add_parser("main")
    main_parser.add_argument("--extras", default="", help="comma-separated extras of pyproject.toml")
    main_parser.add_argument("--with-train", action="store_true", help="prepare .venv-train at the same time")
    train_parser = commands.add_parser("train")
    train_parser.add_argument("--optional", action="store_true", help="exit 0 with one line when it cannot be had")
    options = parser.parse_args(arguments)

    with contextlib.ExitStack() as stack:
        if options.command == "main" and options.with_train:
            stack.enter_context(train_beside())
        return prepare(options)


@contextlib.contextmanager
def train_beside() -> Iterator[None]:
    """Prepares .venv-train in a process of its own, and waits for it; what it says comes last."""
    command = [sys.executable, __file__, "train", "--optional"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        yield
        if process.poll() is None:
            with progress("waiting for .venv-train (PyTorch)"):
                said, _ = process.communicate()
        else:
            said, _ = process.communicate()
        print(said, end="", flush=True)


def prepare(options: argparse.Namespace) -> int:
    """Does one command under its lock; returns the exit status."""
    global LOG
    if options.command == "train":
        LOG = LOG.with_name("environment-train.log")
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two `make` at once: the second waits and finds everything done
        try:
            if options.command == "main":
                prepare_main([extra for extra in options.extras.split(",") if extra])
            else:
                prepare_train(options.optional)
        except StepFailed as error:
            if options.command == "train" and options.optional:
                print(f"tests of training will be skipped: {str(error).splitlines()[0]}")
                return 0
            print(f"\n{error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
