"""CUDA kernels: the GPU twins of the csrc families, with the same operation names.

Importing this package needs neither a GPU nor CUDA. The kernels are shipped as source; ``build_fatbin`` compiles them
with ``nvcc`` where it is installed, and ``build_host_library`` compiles the very same source for the CPU, through
``host_shim.h``, so that their results can be proven without a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tengri_fast.errors import NeuralIntegrationError

__all__ = ["ARCHITECTURES", "KernelBuildError", "build_fatbin", "build_host_library", "find_nvcc", "sources"]

#: Real architectures in the fatbin. PTX of the first one lets newer GPUs compile the rest at load.
ARCHITECTURES = ("80", "90", "100", "120")


class KernelBuildError(NeuralIntegrationError):
    """A compiler was not found, or refused a kernel; the message holds what it said."""


def sources() -> list[Path]:
    """The ``.cu`` files of this package, one per family, in name order."""
    return sorted(Path(__file__).resolve().parent.glob("*.cu"))


def find_nvcc() -> Path | None:
    """``nvcc`` from ``CUDA_HOME`` or ``CUDA_PATH``, else from PATH; None when there is none."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        root = os.environ.get(variable)
        if root and (candidate := Path(root) / "bin" / "nvcc").is_file():
            return candidate
    found = shutil.which("nvcc")
    return Path(found) if found else None


def _run(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise KernelBuildError(f"{what}: `{command[0]}` could not be run: {error}") from error
    if done.returncode != 0:
        raise KernelBuildError(f"{what}: `{command[0]}` said:\n{(done.stderr or done.stdout).strip()}")


def _build(command: list[str], output: Path, what: str) -> Path:
    """Runs a compiler into a temporary file beside ``output`` and moves it into place when all went well."""
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=output.suffix, dir=output.parent)
    os.close(handle)
    try:
        _run([*command, "-o", name], what)
        os.replace(name, output)
    finally:
        Path(name).unlink(missing_ok=True)
    return output


def build_fatbin(output: str | Path, architectures: Sequence[str] = ARCHITECTURES) -> Path:
    """Compiles every kernel into one fatbin.

    Parameters
    ----------
    output : str or Path
        File to write; replaced atomically.
    architectures : sequence of str
        Compute capabilities without the dot, e.g. ``("80", "90")``.

    Raises
    ------
    KernelBuildError
        When ``nvcc`` is missing or refuses a source.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise KernelBuildError("CUDA kernels need `nvcc`: install the CUDA toolkit or set CUDA_HOME")
    flags = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    flags.append(f"-gencode=arch=compute_{architectures[0]},code=compute_{architectures[0]}")
    with tempfile.TemporaryDirectory() as folder:
        # nvcc makes one fatbin of one translation unit.
        unit = Path(folder) / "kernels.cu"
        unit.write_text("".join(f'#include "{path}"\n' for path in sources()), encoding="utf-8")
        include = f"-I{Path(__file__).resolve().parent}"
        return _build([str(nvcc), "-std=c++17", "-O3", include, "--fatbin", *flags, str(unit)], Path(output),
                      "the CUDA kernels could not be compiled")  # fmt: skip


def build_host_library(output: str | Path, compiler: str | None = None, flags: Sequence[str] = ()) -> Path:
    """Compiles every kernel for the CPU, through the host shim, into one shared library.

    For proofs, not for speed: one fibre per CUDA thread.

    Parameters
    ----------
    output : str or Path
        File to write; replaced atomically.
    compiler : str, optional
        C++ compiler; ``CXX`` or ``c++`` by default.
    flags : sequence of str
        Further flags, e.g. a sanitizer.
    """
    compiler = compiler or os.environ.get("CXX") or "c++"
    here = Path(__file__).resolve().parent
    command = [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-DTF_HOST_SHIM", f"-I{here}", *flags]
    for path in sources():
        command += ["-x", "c++", str(path)]
    return _build(command, Path(output), "the kernels could not be compiled for the CPU")
