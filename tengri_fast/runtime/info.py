"""What this installation has: versions, CPU, instruction sets, zero-copy layouts, backends and extras.

Nothing here fails because something is missing: what cannot be found is told with the reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tengri_fast import __version__

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["EXTRAS", "collect", "render"]

# The distributions of each extra, as in pyproject.toml; a test holds the two together.
EXTRAS = {
    "nautilus": ("nautilus_trader",),
    "polymarket": ("nautilus_trader", "py-clob-client-v2"),
    "data": ("pyarrow",),
    "onnx": ("onnxruntime", "onnx"),
    "report": ("plotly", "matplotlib"),
    "risk": ("scipy", "cvxpy-base", "clarabel"),
    "monitor": ("prometheus-client", "textual", "psutil"),
    "train": ("torch", "optuna", "onnxscript", "onnx", "pyarrow"),
    "engine": ("tensorrt-rtx-cu13",),
    "tensorrt": ("tensorrt",),
    "gpu": ("cuda-bindings",),
    "pycuda": ("pycuda",),
    "rivals": ("openvino", "talipp"),
}
VERSIONS = ("numpy", "numba", "msgspec", "click", "rich", "nautilus_trader", "onnxruntime", "pyarrow")


def collect() -> dict[str, Any]:
    """Everything that ``tengri info`` shows, as plain values that can be written as JSON.

    Returns
    -------
    dict
        ``versions`` (name to version or None), ``machine``, ``cpu`` (model, features), ``isa`` (active, available, or
        the reason why the compiled core is not there), ``layouts``, ``backends`` (name to available and reason),
        ``extras`` (name to installed and missing packages).
    """
    isa = _isa()
    return {
        "versions": {
            "tengri_fast": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in VERSIONS},
            "cython_build": _cython_build(),
        },
        "machine": {
            "system": platform.system(),
            "release": platform.release(),
            "architecture": platform.machine(),
            "cores": _cores(),
            "python": sys.executable,
        },
        "cpu": {"model": _cpu_model(), "features": isa.pop("features")},
        "isa": isa,
        "layouts": _layouts(),
        "backends": _backends(),
        "extras": {name: _extra(packages) for name, packages in EXTRAS.items()},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def source_commit() -> str:
    """The commit of the checkout that this package runs from; empty when it was installed from an archive."""
    import subprocess

    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    """The name that the CPU gives itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Processor") and value.strip():
            return value.strip()
    return platform.processor() or "unknown"


def _why(error: BaseException) -> str:
    """An error as one sentence without its class when it is ours, with it when it is not."""
    from tengri_fast.errors import NeuralIntegrationError

    text = " ".join(str(error).split())
    return text if isinstance(error, NeuralIntegrationError) else f"{type(error).__name__}: {text}"


def _isa() -> dict[str, Any]:
    # ImportError: not built. Our own errors: TENGRI_ISA asks for what this machine does not have.
    try:
        native = importlib.import_module("tengri_fast._native")
        return {
            "active": str(native.isa_active()),
            "available": _words(native.isa_available()),
            "reason": None,
            "features": _words(native.cpu_features()),
        }
    except Exception as error:
        return {"active": None, "available": [], "reason": _why(error), "features": []}


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    if isinstance(value, Mapping):
        return [str(key) for key, there in value.items() if there]
    return [str(item) for item in value] if isinstance(value, Iterable) else [str(value)]


def _cython_build() -> str | None:
    """The Cython that compiled our extensions: its runtime registers a module of its version when one is loaded."""
    try:
        native = importlib.import_module("tengri_fast._native")
    except Exception:
        return None
    if isinstance(version := getattr(native, "CYTHON_VERSION", None), str):
        return version
    kind = type(getattr(native, "isa_active", None))
    home = kind.__module__ if kind.__module__.startswith("_cython_") else ""
    return home.removeprefix("_cython_").replace("_", ".") or None


def _layouts() -> dict[str, Any]:
    """What the zero-copy reader found out about the objects of NautilusTrader."""
    if importlib.util.find_spec("nautilus_trader") is None:
        return {"found": None, "reason": "nautilus_trader is not installed: pip install 'tengri_fast[nautilus]'"}
    try:
        importlib.import_module("tengri_fast.nautilus")
        reader = importlib.import_module("tengri_fast.market.reader").reader
        return {"found": _plain(reader.layout), "reason": None}
    except Exception as error:
        return {"found": None, "reason": _why(error)}


def _backends() -> dict[str, Any]:
    try:
        inference = importlib.import_module("tengri_fast.inference")
        rows = inference.available_backends()
    except Exception as error:
        return {"native": {"available": False, "reason": _why(error)}}
    return {row.name: {"available": row.found, "reason": None if row.found else row.reason} for row in rows}


def _extra(packages: tuple[str, ...]) -> dict[str, Any]:
    installed = {name: version for name in packages if (version := _version(name)) is not None}
    return {"installed": installed, "missing": [name for name in packages if name not in installed]}


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def render(found: Mapping[str, Any]) -> RenderableType:
    """What `collect` found, for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def section(title: str, rows: Iterable[tuple[str, str, str]]) -> Table:
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 1)
        )
        table.add_column(min_width=16, no_wrap=True)
        table.add_column(overflow="fold")
        for name, text, style in rows:
            table.add_row(Text(name), Text(text, style=style))
        return table

    cpu, isa, layouts, machine = found["cpu"], found["isa"], found["layouts"], found["machine"]
    versions = [(name, value or "not installed", "" if value else "dim") for name, value in found["versions"].items()]
    hardware = [
        ("CPU", f"{cpu['model']} ({machine['cores']} cores, {machine['architecture']})", ""),
        ("features", " ".join(cpu["features"]) or "unknown", ""),
        ("active ISA", isa["active"] or f"none: {isa['reason']}", "green" if isa["active"] else "red"),
        ("available", " ".join(isa["available"]) or "none", ""),
    ]
    if layouts["found"] is None:
        copies = [("none", layouts["reason"], "yellow")]
    else:
        copies = [(str(name), _layout_text(value), "") for name, value in layouts["found"].items()]
    backends = [
        (
            name,
            "available" if row["available"] else f"missing: {row['reason']}",
            "green" if row["available"] else "yellow",
        )
        for name, row in found["backends"].items()
    ]
    extras = []
    for name, row in found["extras"].items():
        there = ", ".join(f"{package} {version}" for package, version in row["installed"].items())
        lacking = f"missing: {', '.join(row['missing'])}" if row["missing"] else ""
        extras.append((name, "; ".join(filter(None, (there, lacking))), "yellow" if lacking else "green"))
    sections = [
        section("Versions", versions),
        section("CPU", hardware),
        section("Zero-copy layouts", copies),
        section("Inference backends", backends),
        section("Extras", extras),
    ]
    spaced: list[RenderableType] = []
    for table in sections:
        spaced += [table, ""]
    return Group(*spaced[:-1])


def _layout_text(value: object) -> str:
    """One layout in a few words; the offsets themselves are for ``--json``."""
    if not isinstance(value, Mapping):
        return str(value)
    kind = str(value.get("type") or "").rpartition(".")[2]
    if value.get("zero_copy"):
        return f"zero copy of {kind}, {len(value.get('offsets') or ())} fields"
    return f"attribute access: {value.get('reason') or 'not probed'}"
