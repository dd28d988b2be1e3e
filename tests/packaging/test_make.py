"""The Makefile and the scripts behind it, on machines that lack things."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support import REPOSITORY

FIND = REPOSITORY / "tools" / "find_python.sh"
SYSTEM = "/usr/bin:/bin"  # where sh, cut and cat live
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def find(path: str, home: Path, *versions: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(FIND), *versions],
        env={"PATH": path, "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A PATH with the few programs that the script needs, and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "cut", "cat"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return str(folder)


def test_a_shim_that_fails_is_passed_over(tmp_path: Path, tools: str) -> None:
    """A version manager's shim exists, is executable, and exits 127."""
    script(tmp_path / "shims" / f"python{VERSION}", "echo 'command not found' >&2; exit 127")
    script(tmp_path / ".pyenv" / "versions" / f"{VERSION}.9" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    result = find(f"{tmp_path / 'shims'}:{tools}", tmp_path, VERSION)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).resolve() == Path(sys.executable).resolve()


def test_the_folder_of_pyenv_may_be_named(tmp_path: Path, tools: str) -> None:
    script(tmp_path / "py" / "versions" / f"{VERSION}.9" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    assert find(tools, tmp_path, VERSION).returncode == 1
    assert find(tools, tmp_path, VERSION, PYENV_ROOT=str(tmp_path / "py")).returncode == 0


def test_plain_python3_counts_when_it_is_new_enough(tmp_path: Path, tools: str) -> None:
    script(tmp_path / "bin" / "python3", f'exec "{sys.executable}" "$@"')
    assert find(f"{tmp_path / 'bin'}:{tools}", tmp_path, VERSION).returncode == 0
    assert find(f"{tmp_path / 'bin'}:{tools}", tmp_path, "3.99").returncode == 1


def test_nothing_found_says_what_to_install(tmp_path: Path, tools: str) -> None:
    result = find(tools, tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    for words in ("3.12 3.13", "apt install python3.12", "pyenv install 3.12", "make PYTHON="):
        assert words in result.stderr


def test_python_chosen_by_hand(tmp_path: Path, tools: str) -> None:
    assert find(tools, tmp_path, VERSION, PYTHON=sys.executable).stdout.strip() == sys.executable
    result = find(tools, tmp_path, VERSION, PYTHON=str(tmp_path / "no-such-python"))
    assert result.returncode == 1
    assert "no-such-python" in result.stderr


# -- Makefile ----------------------------------------------------------------------------------------------------------

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_bare_make_prints_help_and_does_nothing_else() -> None:
    result = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  ([a-z-]+)  +\S", result.stdout, re.MULTILINE)
    for target in ("demo", "test", "test-fast", "bench", "bench-compare", "lint", "types", "asan", "annotate", "clean"):
        assert target in listed
    assert all(len(line) <= 120 for line in result.stdout.splitlines())


@needs_make
def test_every_target_is_described_and_phony() -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE)
    assert sorted(targets) == sorted(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE))
    described = re.findall(r"^([a-z][a-z-]*):[^#\n]*## \S", text, re.MULTILINE)
    assert set(targets) - set(described) == set()


@needs_make
def test_make_without_python_says_so_and_fails(tmp_path: Path, tools: str) -> None:
    for name in ("make", "awk"):
        Path(tools, name).symlink_to(shutil.which(name) or "")
    result = subprocess.run(
        ["make", "demo"],
        cwd=REPOSITORY,
        env={"PATH": tools, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "No usable Python found" in result.stderr


def test_files_that_targets_run_exist() -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"(?:tools|bench|examples|csrc)/[\w/]+\.(?:py|sh|toml)", text):
        assert (REPOSITORY / name).is_file(), name
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


# -- tools/environment.py ----------------------------------------------------------------------------------------------


@pytest.fixture
def environment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", REPOSITORY / "tools" / "environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_requirements_follow_extras_that_name_extras(environment: ModuleType) -> None:
    lines = environment.requirements(["dev"])
    joined = "\n".join(lines)
    for words in (
        "nautilus_trader==1.231.0",
        "pyarrow",
        "onnxruntime",
        "plotly>=6,<7",
        "pytest",
        "Cython>=3.2,<3.4",
        "numba",
    ):
        assert words in joined
    assert not [line for line in lines if line.startswith("tengri_fast")]
    assert "torch" not in joined
    with pytest.raises(environment.StepFailed, match="no extra `nonsense`"):
        environment.requirements(["nonsense"])


def test_sources_digest_follows_sources_and_switches(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.delenv("TENGRI_DEBUG", raising=False)
    for name in ("setup.py", "pyproject.toml", "csrc/nn/a.c", "tengri_fast/x.pyx", "tengri_fast/readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    first = environment.sources_digest("r")
    (tmp_path / "tengri_fast/readme.md").write_text("other", encoding="utf-8")
    assert environment.sources_digest("r") == first
    assert environment.sources_digest("other requirements") != first
    (tmp_path / "csrc/nn/a.c").write_text("changed", encoding="utf-8")
    second = environment.sources_digest("r")
    assert second != first
    (tmp_path / "tengri_fast/new.pyx").write_text("", encoding="utf-8")
    assert environment.sources_digest("r") != second
    third = environment.sources_digest("r")
    monkeypatch.setenv("TENGRI_DEBUG", "1")
    assert environment.sources_digest("r") != third
    monkeypatch.delenv("TENGRI_DEBUG")
    monkeypatch.setenv("TENGRI_ISA", "scalar")
    assert environment.sources_digest("r") == third


@pytest.mark.parametrize(
    ("compiler", "words"),
    [("/no/such/cc", "is not on PATH"), ("false", "cannot build a program")],
)
def test_a_missing_or_broken_compiler_is_named(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, compiler: str, words: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(environment.StepFailed, match=words) as caught:
        environment.check_compiler()
    assert compiler in str(caught.value)
    assert "apt install build-essential" in str(caught.value)


def test_a_failed_step_shows_the_end_of_its_own_output(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "LOG", tmp_path / "build" / "environment.log")
    environment.run([sys.executable, "-c", "print('first step')"], "it failed")
    with pytest.raises(environment.StepFailed) as caught:
        environment.run([sys.executable, "-c", "print('because'); raise SystemExit(3)"], "it failed")
    assert "it failed (exit code 3)" in str(caught.value)
    assert "because" in str(caught.value)
    assert "first step" not in str(caught.value)


def test_a_stamp_is_kept_only_after_success(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[object]] = []
    monkeypatch.setattr(environment, "run", lambda command, failure: calls.append(list(command)))
    environment.install(tmp_path, ["a>=1"], "text", "packages")
    environment.install(tmp_path, ["a>=1"], "text", "packages")
    assert len(calls) == 1
    environment.install(tmp_path, ["a>=1", "b"], "text", "packages")
    assert len(calls) == 2

    def fail(command: list[object], failure: str) -> None:
        raise environment.StepFailed(failure)

    monkeypatch.setattr(environment, "run", fail)
    before = environment.read_stamp(tmp_path)
    with pytest.raises(environment.StepFailed):
        environment.install(tmp_path, ["c"], "text", "packages")
    assert environment.read_stamp(tmp_path) == before


def test_the_training_environment_is_prepared_beside_and_may_fail(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.py"
    other.write_text("import sys\nprint('said', sys.argv[1:])\nraise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.setattr(environment, "__file__", str(other))
    with environment.train_beside():
        print("meanwhile")
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "meanwhile"
    assert lines[-1] == "said ['train', '--optional']"
