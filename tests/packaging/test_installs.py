"""The four ways to install, each into an environment of its own, and what they put there."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from installs import pip, run
from support import REPOSITORY

pytestmark = pytest.mark.slow

# All are release builds, and what was compiled once is not compiled again (installs.CACHE). The debug build has a test
# of its own.
WITHOUT_ADAPTER = {"TENGRI_NAUTILUS": "0"}

Copy = Callable[[Path], Path]
MakeEnvironment = Callable[..., Path]
CheckInstall = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def archives(copy_repository: Copy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source archive and wheel of `python -m build`: the wheel comes from the archive, isolated, without Nautilus."""
    folder = tmp_path_factory.mktemp("build")
    copy = copy_repository(folder / "copy")
    # What an earlier build may have left behind: a module that has since been deleted.
    for stale in (copy / "build" / "lib" / "tengri_fast", *copy.glob("build/lib.*/tengri_fast")):
        stale.mkdir(parents=True, exist_ok=True)
        (stale / "deleted_long_ago.py").write_text("", encoding="utf-8")
    run([sys.executable, "-m", "build", "--outdir", folder / "dist", copy], cwd=folder, **WITHOUT_ADAPTER)
    (source,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return source, wheel


def test_source_archive_holds_what_a_build_needs(archives: tuple[Path, Path], tracked_files: list[str]) -> None:
    with tarfile.open(archives[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
        links = [member.name for member in archive.getmembers() if not (member.isfile() or member.isdir())]
    assert links == []
    wanted = {
        name
        for name in tracked_files
        if name.startswith(("csrc/", "tengri_fast/", "tools/")) and (REPOSITORY / name).is_file()
    }
    assert wanted - names == set()
    assert {"LICENSE", "pyproject.toml", "setup.py", "README.md", "CHANGELOG.md"} <= names
    assert [name for name in names if name.endswith((".so", ".o", ".a", ".pyc"))] == []


def test_wheel_holds_the_package_and_nothing_else(archives: tuple[Path, Path], tracked_files: list[str]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
    tree = {
        path.relative_to(REPOSITORY).as_posix().replace(top, inside, 1)
        for top, inside in (
            ("tengri_fast/", "tengri_fast/"),
            ("kernels/", "tengri_fast/kernels/"),
            ("engines/", "tengri_fast/engines/"),
            ("models/", "tengri_fast/models/"),
            ("csrc/include/", "tengri_fast/include/"),
        )
        for path in (REPOSITORY / name for name in tracked_files if name.startswith(top))
        if path.is_file()
    }
    generated = re.compile(r"\.(so|fatbin)$")
    inside = {name for name in names if name.startswith("tengri_fast/") and not generated.search(name)}
    assert inside == {name for name in tree if not name.endswith((".pyx", ".gitignore"))}
    assert {name.split("/")[0] for name in names} == {
        "tengri_fast",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    assert not [name for name in names if "deleted_long_ago" in name]
    # One compiled module per .pyx, except the adapter's, which was left out.
    built = {re.sub(r"\.[^./]+\.so$", "", name) for name in names if name.endswith(".so")}
    sources = {name.removesuffix(".pyx") for name in tracked_files if name.endswith(".pyx")}
    assert built == {name for name in sources if name.startswith("tengri_fast/") and "/nautilus/" not in name}


def test_wheel_with_the_core_alone(
    archives: tuple[Path, Path], make_environment: MakeEnvironment, check_install: CheckInstall, tmp_path: Path
) -> None:
    """`import tengri_fast` and `tengri info` work; what is missing is one sentence that names the extra."""
    python = make_environment(tmp_path / "environment")
    run([*pip(python), "install", "--quiet", archives[1]], cwd=tmp_path)
    check_install(python, tmp_path)
    installed = run([*pip(python), "list", "--format=freeze"], cwd=tmp_path).lower()
    assert not re.search(r"^(nautilus_trader|pyarrow|onnx|onnxruntime|torch|plotly|scipy)==", installed, re.MULTILINE)

    info = run([python.parent / "tengri", "info"], cwd=tmp_path)
    assert "nautilus" in info.lower()
    for statement, extra in [
        ("import tengri_fast.nautilus", "nautilus"),
        ("from tengri_fast.market import read_quotes; read_quotes('quotes.parquet')", "data"),
    ]:
        (tmp_path / "quotes.parquet").write_bytes(b"PAR1")
        lines = "\n    ".join(statement.split("; "))
        program = f"try:\n    {lines}\nexcept ImportError as error:\n    print('SAID', error)"
        said = run([python, "-c", program], cwd=tmp_path)
        assert said.startswith("SAID"), said
        assert f"tengri_fast[{extra}]" in said
        assert len(said.strip().splitlines()) == 1


def test_pip_install_with_nautilus_into_an_empty_environment(
    copy_repository: Copy, make_environment: MakeEnvironment, check_install: CheckInstall, tmp_path: Path
) -> None:
    """`pip install .[nautilus]`, isolated: the backend brings Nautilus for the build, and the adapter imports."""
    copy = copy_repository(tmp_path / "copy")
    python = make_environment(tmp_path / "environment")
    run([*pip(python), "install", "--quiet", f"{copy}[nautilus]"], cwd=tmp_path)
    check_install(python, tmp_path / "environment")
    program = "import tengri_fast.nautilus as n; print(n.TengriNeuralStrategy.__mro__[1].__module__)"
    said = run([python, "-c", program], cwd=tmp_path)
    assert "tengri_fast" in said or "nautilus_trader" in said


def test_editable_install(
    copy_repository: Copy,
    make_environment: MakeEnvironment,
    check_install: CheckInstall,
    tmp_path: Path,
) -> None:
    """`pip install -e .`: imports come from the tree, and another project's `cimport` finds the .pxd files."""
    copy = copy_repository(tmp_path / "copy")
    python = make_environment(tmp_path / "environment", borrow=True)
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*install, "--editable", copy], cwd=tmp_path, **WITHOUT_ADAPTER)
    check_install(python, copy)
    other = tmp_path / "other"
    other.mkdir()
    (other / "reader.pyx").write_text(
        "from tengri_fast.market.events cimport tf_quote\n"
        "from tengri_fast.features.plan cimport FeatureState\n"
        "def size():\n    return sizeof(tf_quote)\n",
        encoding="utf-8",
    )
    run([python, "-m", "cython", "-3", "reader.pyx"], cwd=other)
    assert "tengri/events.h" in (other / "reader.c").read_text(encoding="utf-8")


def test_build_in_place(
    copy_repository: Copy,
    make_environment: MakeEnvironment,
    check_install: CheckInstall,
    tmp_path: Path,
) -> None:
    """`python setup.py build_ext --inplace`, then the tree on the path: nothing deleted, only .so files added."""
    copy = copy_repository(tmp_path / "copy")
    before = {path for path in copy.rglob("*") if path.is_file()}
    python = make_environment(tmp_path / "environment", borrow=True)
    run([python, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=copy, **WITHOUT_ADAPTER)
    after = {path for path in copy.rglob("*") if path.is_file() and "build" not in path.relative_to(copy).parts}
    assert before - after == set()
    assert {path.suffix for path in after - before} == {".so"}
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], cwd=tmp_path).strip()
    Path(site, "tree.pth").write_text(f"{copy}\n", encoding="utf-8")
    script = python.parent / "tengri"
    script.write_text(f"#!{python}\nfrom tengri_fast.cli import main\nmain()\n", encoding="utf-8")
    script.chmod(0o755)
    check_install(python, copy)


def test_debug_build(copy_repository: Copy, make_environment: MakeEnvironment, tmp_path: Path) -> None:
    """TENGRI_DEBUG=1, and no cache: all of csrc/ with its assertions, and the extension that links all of it."""
    copy = copy_repository(tmp_path / "copy")
    python = make_environment(tmp_path / "environment", borrow=True)
    run(
        [python, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=copy, **WITHOUT_ADAPTER,
        TENGRI_DEBUG="1", TENGRI_CACHE="", TENGRI_EXTENSIONS="tengri_fast._native",
    )  # fmt: skip
    program = "from tengri_fast import _native; print(_native.isa_active(), _native.__file__)"
    assert str(copy) in run([python, "-c", program], cwd=copy)
    (stamp,) = copy.glob("build/temp.*/flags.txt")
    assert "-O0 -g -UNDEBUG" in stamp.read_text(encoding="utf-8")
