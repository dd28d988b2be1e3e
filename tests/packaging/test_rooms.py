"""The direction of the arrows between rooms, read from the imports; and what a bare import pulls in."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import REPOSITORY

PACKAGE = REPOSITORY / "tengri_fast"

# Every room may use errors and _native. `capi` and `events` declare C only, and C is open to every room.
OPEN = {"errors", "_native", "__init__"}
DECLARATIONS = {"tengri_fast.features.capi", "tengri_fast.inference.capi", "tengri_fast.market.events"}
EVERYTHING = {"*"}
MAY_IMPORT: dict[str, set[str]] = {
    "market": set(),
    "features": {"market"},
    "inference": set(),
    "kernels": set(),
    "engines": {"inference"},
    "risk": set(),
    "runtime": {"market", "features", "inference", "risk"},
    "nautilus": EVERYTHING,
    "training": {"market", "features", "inference", "runtime", "risk"},
    "report": set(),
    "cli": EVERYTHING,
    "models": {"training", "market", "features", "inference", "runtime"},
}
# A model card and a report state skill by the same code, which needs no more than NumPy.
SINGLE_MODULES = {("training", "tengri_fast.report.skill")}
ONLY_IN = {"nautilus_trader": {"nautilus"}, "torch": {"training", "models", "cli"}, "optuna": {"training", "models"}}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import and cimport, also those inside functions."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{path}:{node.lineno}: a relative import"
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"
        return
    pattern = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+\(?\s*(\w+|\*)?|c?import\s+([\w.]+))")
    for number, line in enumerate(text.splitlines(), 1):
        match = pattern.match(line)
        if match:
            yield number, match[3] or (f"{match[1]}.{match[2]}" if match[2] else match[1])


def sources(room: str) -> list[Path]:
    folder = PACKAGE / room
    return [path for path in sorted(folder.resolve().rglob("*")) if path.suffix in {".py", ".pyx", ".pxd"}]


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert rooms - {"include"} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_arrows(room: str) -> None:
    wrong = []
    for path in sources(room):
        for line, module in imported(path):
            top, _, rest = module.partition(".")
            place = f"{path.relative_to(REPOSITORY)}:{line}: {module}"
            if top in ONLY_IN and room not in ONLY_IN[top]:
                wrong.append(place)
            if top != "tengri_fast" or not rest:
                continue
            other = rest.split(".")[0]
            if other in {room, *OPEN} or other not in MAY_IMPORT:
                continue
            free = DECLARATIONS | {name for user, name in SINGLE_MODULES if user == room}
            if any(module == name or module.startswith(name + ".") for name in free):
                continue
            if MAY_IMPORT[room] != EVERYTHING and other not in MAY_IMPORT[room]:
                wrong.append(place)
    assert wrong == []


def loaded_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print('\\n'.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


HEAVY = {"numba", "llvmlite", "nautilus_trader", "pyarrow", "pandas", "onnxruntime", "onnx", "torch", "plotly",
         "matplotlib", "scipy", "cvxpy", "tensorrt", "tensorrt_rtx", "pycuda", "textual"}  # fmt: skip


@pytest.mark.parametrize("room", ["tengri_fast", *(f"tengri_fast.{room}" for room in sorted(MAY_IMPORT))])
def test_a_bare_import_is_light(room: str) -> None:
    """Optional packages, and numba, are imported when they are used. The adapter alone needs Nautilus at once."""
    if room == "tengri_fast.nautilus":
        pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")
        heavy = HEAVY - {"nautilus_trader", "pandas", "pyarrow", "numba", "llvmlite", "scipy"}
    elif room == "tengri_fast.training":
        heavy = HEAVY - {"torch"}
    else:
        heavy = HEAVY
    assert loaded_by(f"import {room}") & heavy == set()


def test_import_writes_and_prints_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, threading\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "events = []\n"
        "watched = ('socket.connect', 'subprocess.Popen', 'os.system', 'shutil.rmtree', 'os.remove', 'os.mkdir')\n"
        "sys.addaudithook(lambda name, args: events.append(name) if name in watched else None)\n"
        "import tengri_fast\n"
        "assert events == [], events\n"
        "assert threading.active_count() == 1\n"
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
