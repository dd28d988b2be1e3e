"""What the repository holds: no trace of the machine it was written on, data as described, types beside extensions."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys

import pytest
from support import REPOSITORY

# Assembled, so that this file does not match itself. Absolute folders of one machine, and words about how work is
# organised: a reader of the repository can do nothing with either.
FOLDERS = ["work", "root", "home", "tmp" + "/tf"]
WORDS = [
    "sub" + "agent",
    "issues" + " show",
    "c" + "eo's",
    "shared" + "/docs",
    "shared" + "/prototypes",
    "pip" + "_cert",
]
ABSOLUTE = re.compile(r"(?<![\w.\-}$)~])/(?:" + "|".join(FOLDERS) + r")/[\w.]", re.IGNORECASE)
TALK = re.compile("|".join(map(re.escape, WORDS)), re.IGNORECASE)
NUMBERED = re.compile(r"\b(?:issue|agent|helper)\s+#?\d+\b", re.IGNORECASE)
# Real text files only; weights and ticks are not read.
BINARY = (".parquet", ".onnx", ".npz", ".png", ".gz", ".ico")


def texts(tracked_files: list[str]) -> list[tuple[str, str]]:
    found = []
    for name in tracked_files:
        path = REPOSITORY / name
        if name.endswith(BINARY) or path.is_symlink() or not path.is_file():
            continue
        found.append((name, path.read_text(encoding="utf-8")))
    assert len(found) > 50
    return found


@pytest.mark.parametrize("pattern", [ABSOLUTE, TALK, NUMBERED], ids=["paths", "words", "numbers"])
def test_nothing_speaks_of_one_machine_or_of_how_it_was_written(
    tracked_files: list[str], pattern: re.Pattern[str]
) -> None:
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}"
        for name, text in texts(tracked_files)
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_the_patterns_find_what_they_look_for() -> None:
    assert ABSOLUTE.search("open('/" + "work/main/x')")
    assert not ABSOLUTE.search("https://example.org/" + "work/x and ${ROOT}/home/x")
    assert TALK.search("see SHARED" + "/docs/x")
    assert NUMBERED.search("as issue " + "#7 says")


def test_python_sources_hold_no_unfinished_work(tracked_files: list[str]) -> None:
    marks = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b|NotImplemented" + r"Error\(\s*\)")
    found = [
        name for name, text in texts(tracked_files) if name.endswith((".py", ".pyx", ".c", ".h")) if marks.search(text)
    ]
    assert found == []


def test_no_pickle_and_no_eval(tracked_files: list[str]) -> None:
    """Models and states are read without executing anything."""
    found = []
    for name, text in texts(tracked_files):
        if not name.endswith(".py") or name.startswith("tests/"):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                found += [
                    f"{name}: imports {m}" for m in modules if m.split(".")[0] in {"pickle", "dill", "cloudpickle"}
                ]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
                found.append(f"{name}:{node.lineno}: {node.func.id}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                found.append(f"{name}: allow_pickle")
    assert found == []


def test_every_extension_has_its_types(tracked_files: list[str]) -> None:
    sources = [name for name in tracked_files if name.startswith("tengri_fast/") and name.endswith(".pyx")]
    assert sources
    assert [name for name in sources if name.replace(".pyx", ".pyi") not in tracked_files] == []
    assert "tengri_fast/py.typed" in tracked_files


def test_links_are_committed_as_links(tracked_files: list[str]) -> None:
    for name, target in {
        "tengri_fast/kernels": "../kernels",
        "tengri_fast/engines": "../engines",
        "tengri_fast/models": "../models",
        "tengri_fast/include": "../csrc/include",
    }.items():
        assert name in tracked_files
        assert os.readlink(REPOSITORY / name) == target


def test_sample_data_is_what_the_page_says() -> None:
    folder = REPOSITORY / "data" / "binance_usdm_btcusdt"
    page = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
    sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    files = sorted(folder.glob("*.parquet"))
    assert sorted(sums) == [path.name for path in files]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert sums[path.name] == digest
        rows = parquet.read_metadata(path).num_rows
        assert f"| `{path.name}` | {rows:,} | " in page
        assert digest in page


def test_no_large_files(tracked_files: list[str]) -> None:
    sizes = {name: (REPOSITORY / name).lstat().st_size for name in tracked_files}
    assert {name: size for name, size in sizes.items() if size > 2_000_000} == {}


def test_version_has_one_source() -> None:
    command = [sys.executable, "setup.py", "--quiet", "--version"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()[-1]
    import tengri_fast

    assert said == tengri_fast.__version__
    assert f"## [{said}]" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
