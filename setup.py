"""Builds the C library and the Cython extensions.

Everything that is slow or needs Cython, numpy or a compiler happens inside ``build_ext``, so that asking this file for
metadata (which pip does several times) costs nothing and works without them.

Switches (environment):
    TENGRI_DEBUG=1          -O0 -g, assertions of C and bounds checks of Cython on
    TENGRI_SANITIZE=LIST    sanitizers of the compiler, e.g. "address,undefined" or "thread"
    TENGRI_NATIVE=1         -march=native for the portable files (for the machine that builds; never for a wheel)
    TENGRI_LINETRACE=1      line tracing, so that coverage.py sees Cython lines (slow)
    TENGRI_NAUTILUS=0       leave out the NautilusTrader adapter
    TENGRI_EXTENSIONS=LIST  build only the extensions whose name contains one of these comma-separated words
    TENGRI_CYTHON_DIR=DIR   where the generated C goes (build/cython)
    TENGRI_CACHE=DIR        keep generated C and objects there by content, and take from it what is equal (off)
    TENGRI_JOBS=N           parallel compilations (all cores)
    CC, AR                  compiler and archiver; a cross compiler is recognised by its own ``-dumpmachine``
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent.resolve()
NAUTILUS_VERSION = "1.231.0"


def switch(name: str, default: str = "0") -> bool:
    return os.environ.get(name, default).strip().lower() not in {"", "0", "false", "no", "off"}


DEBUG = switch("TENGRI_DEBUG")
NATIVE = switch("TENGRI_NATIVE")
LINETRACE = switch("TENGRI_LINETRACE")
SANITIZE = os.environ.get("TENGRI_SANITIZE", "").strip()
CACHE = os.environ.get("TENGRI_CACHE", "").strip()
ONLY = [word.strip() for word in os.environ.get("TENGRI_EXTENSIONS", "").split(",") if word.strip()]
JOBS = int(os.environ.get("TENGRI_JOBS", "0")) or os.cpu_count() or 1

# A file's suffix names its instruction set; everything else is compiled for the baseline of the platform.
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", *AVX2, "-mprefer-vector-width=512"]
ISA_FLAGS = {
    "_avx2": AVX2,
    "_avxvnni": [*AVX2, "-mavxvnni"],
    "_avx512": AVX512,
    "_avx512vnni": [*AVX512, "-mavx512vnni"],
    "_avx512bf16": [*AVX512, "-mavx512vnni", "-mavx512bf16"],
    "_avx512fp16": [*AVX512, "-mavx512vnni", "-mavx512bf16", "-mavx512fp16"],
}

# Which parts of csrc/ each room links. The archives are static: an extension carries only what it calls.
ARCHIVES = {
    "tengri_fast._native": ("nn", "features", "isa"),
    "tengri_fast.market": ("book", "features", "isa"),
    "tengri_fast.features": ("features", "isa"),
    "tengri_fast.inference": ("nn", "isa"),
    "tengri_fast.runtime": ("nn", "features", "isa"),
    "tengri_fast.nautilus": ("nn", "book", "features", "risk", "isa"),
    "tengri_fast.risk": ("risk", "isa"),
}


def write_if_changed(path: Path, text: str) -> bool:
    """Writes ``text`` and says True when the file did not hold it already; an equal file keeps its time."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


@functools.cache
def cache_tool() -> Any:
    """tools/build_cache.py as a module; a build in place leaves no bytecode beside it."""
    spec = importlib.util.spec_from_file_location("tengri_build_cache", ROOT / "tools" / "build_cache.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


def nautilus_includes() -> list[str] | None:
    """Include folders of the installed NautilusTrader, or None when the adapter is not to be built."""
    if not switch("TENGRI_NAUTILUS", "1") or sys.version_info < (3, 12):
        return None
    try:
        version = importlib.metadata.version("nautilus_trader")
    except importlib.metadata.PackageNotFoundError:
        return None
    spec = importlib.util.find_spec("nautilus_trader")
    if spec is None or not spec.submodule_search_locations:
        return None
    if version != NAUTILUS_VERSION:
        print(
            f"tengri_fast: the adapter is built for nautilus_trader {NAUTILUS_VERSION}, found {version}: left out",
            file=sys.stderr,
        )
        return None
    return [str(Path(spec.submodule_search_locations[0]) / "core" / "includes")]


def find_extensions() -> list[Extension]:
    """One extension per .pyx; include folders and flags are added when it is built."""
    includes = nautilus_includes()
    found = []
    for path in sorted((ROOT / "tengri_fast").glob("**/*.pyx")):
        relative = path.relative_to(ROOT)
        name = ".".join(relative.with_suffix("").parts)
        if ONLY and not any(word in name for word in ONLY):
            continue
        is_adapter = name.startswith("tengri_fast.nautilus.")
        if is_adapter and includes is None:
            continue
        extra = includes if is_adapter and includes else []
        found.append(Extension(name, [relative.as_posix()], include_dirs=["csrc/include", "csrc", *extra]))
    return found


class Build(build):
    """Starts from an empty ``build/lib*``, so that a module deleted since the last build cannot ride along."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildExt(build_ext):
    """Compiles csrc/ once into static archives, then the extensions that link them."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if not self.parallel:
            self.parallel = JOBS
        if getattr(self, "editable_mode", False):
            # setuptools would use a temporary folder here; a lasting one makes the next build short.
            self.build_temp = f"build/temp.{self.plat_name}-{sys.implementation.cache_tag}"

    def get_source_files(self) -> list[str]:
        """What a source archive needs: the .pyx files, not the C that was made from them."""
        return [extension.name.replace(".", "/") + ".pyx" for extension in self.extensions]

    # -- what the compiler can do ----------------------------------------------------------------------------------

    def compiler_command(self) -> list[str]:
        """The compiler without its flags: ``["gcc"]``, ``["ccache", "gcc"]``."""
        configured = os.environ.get("CC")
        words = shlex.split(configured) if configured else list(getattr(self.compiler, "compiler", ["cc"]))
        command = []
        for word in words:
            if word.startswith("-"):
                break
            command.append(word)
        if not command or shutil.which(command[-1]) is None:
            raise CompileError(
                f"a C compiler is needed and `{' '.join(command) or 'cc'}` is not on PATH: install one "
                "(Debian, Ubuntu: apt install build-essential; Fedora: dnf install gcc; macOS: xcode-select --install)"
            )
        return command

    def probe_isas(self, compiler: list[str]) -> list[str]:
        """The instruction sets that this compiler can produce code for."""
        try:
            machine = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            machine = platform.machine()
        if machine.strip().lower().split("-")[0] not in {"x86_64", "amd64"}:
            return []
        usable = []
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text("#include <immintrin.h>\nint main(void) { return 0; }\n", encoding="utf-8")
            for isa, flags in ISA_FLAGS.items():
                command = [*compiler, *flags, "-c", str(source), "-o", str(source.with_suffix(".o"))]
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    usable.append(isa)
                else:
                    print(f"tengri_fast: the compiler knows no {isa[1:]}: those kernels are left out", file=sys.stderr)
        return usable

    def common_flags(self, isas: list[str]) -> list[str]:
        flags = ["-std=c17", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
        if DEBUG:
            flags += ["-O0", "-g", "-UNDEBUG", "-DTF_DEBUG=1"]
        else:
            # Debug information, which Python's own flags ask for, makes the build a third longer and nobody reads it.
            flags += ["-O1" if SANITIZE else "-O3", "-DNDEBUG", "-g0"]
        if SANITIZE:
            flags += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
        if sys.platform.startswith("linux"):
            flags.append("-pthread")  # worker teams; part of the C library itself only since glibc 2.34
        return flags + [f"-DTF_HAVE_{isa[1:].upper()}=1" for isa in isas]

    # -- building --------------------------------------------------------------------------------------------------

    def build_extensions(self) -> None:
        compiler = self.compiler_command()
        if CACHE:
            launcher = [sys.executable, "-I", "-S", str(ROOT / "tools" / "build_cache.py"), str(Path(CACHE).absolute())]
            self.compiler.set_executable("compiler_so", [*launcher, *self.compiler.compiler_so])
        else:
            launcher = []
        isas = self.probe_isas(compiler)
        flags = self.common_flags(isas)
        stamp = self.write_flags_stamp(compiler, flags)
        archives = self.build_csrc([*launcher, *compiler], isas, flags, stamp)
        headers = [str(path) for path in sorted((ROOT / "csrc" / "include").glob("**/*.h"))]
        self.cythonize()
        for extension in self.extensions:
            self.configure(extension, flags, archives, [str(stamp), *headers])
        super().build_extensions()
        if CACHE:
            cache_tool().prune(Path(CACHE))

    def write_flags_stamp(self, compiler: list[str], flags: list[str]) -> Path:
        """A file that changes when anything but a source changes: every object depends on it."""
        import Cython
        import numpy

        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
        lines = [
            *(" ".join(words) for words in (compiler, flags)),
            os.environ.get("CFLAGS", ""),
            os.environ.get("LDFLAGS", ""),
            version.split("\n")[0],
            f"python {sys.version}",
            f"cython {Cython.__version__} numpy {numpy.__version__} nautilus {nautilus_includes()}",
            f"native {NATIVE} linetrace {LINETRACE} debug {DEBUG}",
            hashlib.sha256((ROOT / "setup.py").read_bytes()).hexdigest(),
        ]
        stamp = Path(self.build_temp).absolute() / "flags.txt"
        write_if_changed(stamp, "\n".join(lines) + "\n")
        return stamp

    def configure(self, extension: Extension, flags: list[str], archives: dict[str, Path], depends: list[str]) -> None:
        import numpy

        room = max((key for key in ARCHIVES if extension.name.startswith(key)), key=len, default="")
        linked = [str(archives[part]) for part in ARCHIVES.get(room, ()) if part in archives]
        extension.include_dirs = [*extension.include_dirs, numpy.get_include()]
        extension.define_macros = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
        if LINETRACE:
            extension.define_macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
        extension.extra_compile_args = [*flags, "-Wno-unused-parameter", "-Wno-unused-function"]
        # The dispatch table and the kernels name each other, so the archives are searched as one group.
        group = linked and sys.platform.startswith("linux")
        extension.extra_link_args = ["-Wl,--start-group", *linked, "-Wl,--end-group"] if group else linked
        if sys.platform.startswith("linux"):
            extension.extra_link_args = [*extension.extra_link_args, "-pthread"]
        if SANITIZE:
            extension.extra_link_args = [*extension.extra_link_args, f"-fsanitize={SANITIZE}"]
        extension.depends = [*extension.depends, *depends, *linked]

    def cythonize(self) -> None:
        """Turns each .pyx into C under the Cython folder; unchanged ones are left alone."""
        from Cython.Build import cythonize

        directives: dict[str, Any] = {
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "embedsignature": True,
            "linetrace": LINETRACE,
            "warn.deprecated.IF": False,  # Nautilus' own declarations use it
        }
        folder = Path(os.environ.get("TENGRI_CYTHON_DIR", "build/cython"))
        made = {e.name: (ROOT / folder / e.sources[0]).with_suffix(".c") for e in self.extensions}
        if write_if_changed(ROOT / folder / "directives.txt", repr(sorted(directives.items())) + "\n"):
            for path in made.values():
                path.unlink(missing_ok=True)
        keys = self.cython_keys(directives) if CACHE else {}
        self.restore_c(keys, made)
        times = {name: path.stat().st_mtime_ns for name, path in made.items() if path.exists()}
        done = cythonize(
            list(self.extensions),
            build_dir=str(folder),
            include_path=[str(ROOT)],
            compiler_directives=directives,
            force=bool(self.force),
            nthreads=min(JOBS, len(self.extensions)) if sys.platform.startswith("linux") else 0,
            quiet=self.verbose == 0,
        )
        if CACHE and self.cython_keys(directives) == keys:  # else somebody edited a source meanwhile
            for name in keys:
                if made[name].stat().st_mtime_ns != times.get(name):
                    cache_tool().store(Path(CACHE).absolute(), keys[name], made[name].read_bytes())
        by_name = {extension.name: extension for extension in done}
        for extension in self.extensions:
            extension.sources = by_name[extension.name].sources
            extension.depends = by_name[extension.name].depends

    def cython_keys(self, directives: dict[str, Any]) -> dict[str, str]:
        """A name for the C of each extension; it changes with any .pyx or .pxd of the package, which is enough here."""
        import Cython
        import numpy

        sources = sorted(p for p in (ROOT / "tengri_fast").glob("**/*") if p.suffix in {".pyx", ".pxd", ".pxi"})
        texts = [(str(path.relative_to(ROOT)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in sources]
        common = (Cython.__version__, numpy.__version__, sys.version_info[:2], sorted(directives.items()), texts)
        adapter = {
            e.name: NAUTILUS_VERSION if e.name.startswith("tengri_fast.nautilus.") else "" for e in self.extensions
        }
        return {name: cache_tool().digest(*common, name, nautilus) for name, nautilus in adapter.items()}

    @staticmethod
    def restore_c(keys: dict[str, str], made: dict[str, Path]) -> None:
        """Takes C that is not there yet from the cache."""
        for name in keys:
            text = None if made[name].exists() else cache_tool().fetch(Path(CACHE).absolute(), keys[name])
            if text is not None:
                made[name].parent.mkdir(parents=True, exist_ok=True)
                made[name].write_bytes(text)

    def build_csrc(self, compiler: list[str], isas: list[str], flags: list[str], stamp: Path) -> dict[str, Path]:
        """One static archive per folder of csrc/: {"nn": .../libtengri_nn.a, ...}."""
        target = Path(self.build_temp).absolute() / "csrc"
        headers = [*ROOT.glob("csrc/**/*.h"), *ROOT.glob("csrc/**/*.def"), *ROOT.glob("csrc/**/*.inc"), stamp]
        newest_header = max(path.stat().st_mtime for path in headers)
        jobs: list[tuple[Path, Path, list[str]]] = []
        members: dict[str, list[Path]] = {}
        for source in sorted((ROOT / "csrc").glob("*/*.c")):
            folder = source.parent.name
            if folder in {"include", "tests"}:
                continue
            isa = next((s for s in sorted(ISA_FLAGS, key=len, reverse=True) if source.stem.endswith(s)), None)
            if isa and isa not in isas:
                continue
            output = target / folder / (source.stem + ".o")
            members.setdefault(folder, []).append(output)
            if output.exists() and output.stat().st_mtime > max(newest_header, source.stat().st_mtime):
                continue
            special = ISA_FLAGS[isa] if isa else ["-march=native"] if NATIVE else []
            jobs.append((source, output, [*flags, "-fPIC", *shlex.split(os.environ.get("CFLAGS", "")), *special]))
            output.parent.mkdir(parents=True, exist_ok=True)

        def compile_one(job: tuple[Path, Path, list[str]]) -> None:
            source, output, args = job
            include = ["-I" + str(ROOT / "csrc" / "include"), "-I" + str(ROOT / "csrc")]
            self.spawn([*compiler, *args, *include, "-c", str(source), "-o", str(output)])

        with ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(compile_one, jobs))
        archives = {}
        for folder, objects in members.items():
            archive = target / f"libtengri_{folder}.a"
            if not self.archive_is_current(archive, objects):
                archive.unlink(missing_ok=True)
                self.spawn([*shlex.split(os.environ.get("AR", "ar")), "rcs", str(archive), *map(str, objects)])
            archives[folder] = archive
        return archives

    @staticmethod
    def archive_is_current(archive: Path, objects: list[Path]) -> bool:
        """False also when a source file was removed: the list of members is kept beside the archive."""
        members = "".join(f"{path.name}\n" for path in objects)
        same_members = not write_if_changed(archive.with_suffix(".txt"), members)
        return (
            same_members
            and archive.exists()
            and all(path.stat().st_mtime <= archive.stat().st_mtime for path in objects)
        )


setup(ext_modules=find_extensions(), cmdclass={"build": Build, "build_ext": BuildExt})
