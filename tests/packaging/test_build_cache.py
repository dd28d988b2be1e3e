"""The cache of compiled objects: equal input is compiled once, and nothing that goes wrong with the folder matters."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from support import REPOSITORY

TOOL = REPOSITORY / "tools" / "build_cache.py"
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="cc is needed")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_cache", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Project:
    """A source with a header, a cache, and a compiler that counts how often it compiles."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache, self.log = folder, cache, folder / "calls"
        (folder / "include").mkdir(parents=True)
        (folder / "include" / "one.h").write_text("enum { ONE = 1 };\n", encoding="utf-8")
        (folder / "one.c").write_text('#include "one.h"\nint one(void) { return ONE; }\n', encoding="utf-8")
        self.compiler = cache.parent / "compiler"
        if not self.compiler.exists():
            self.compiler.write_text('#!/bin/sh\necho "$@" >> calls\nexec cc "$@"\n', encoding="utf-8")
            self.compiler.chmod(0o755)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", TOOL, self.cache, self.compiler, *arguments]
        return subprocess.run(list(map(str, command)), cwd=self.folder, capture_output=True, text=True, check=False)

    def compile(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.call("-O1", *flags, "-Iinclude", "-c", "one.c", "-o", "one.o")

    def compilations(self) -> int:
        """How often an object was made; preprocessing does not count."""
        calls = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return sum(" -E " not in f" {call} " for call in calls)

    def entries(self) -> list[Path]:
        return sorted(path for path in self.cache.glob("*/*") if path.is_file())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", tmp_path / "cache")


@needs_compiler
def test_equal_input_is_compiled_once_wherever_it_lies(project: Project, tmp_path: Path) -> None:
    assert project.compile().returncode == 0
    first = (project.folder / "one.o").read_bytes()
    (project.folder / "one.o").unlink()
    assert project.compile().returncode == 0
    assert (project.folder / "one.o").read_bytes() == first
    assert project.compilations() == 1
    copy = Project(tmp_path / "elsewhere", project.cache)
    assert copy.compile().returncode == 0
    assert copy.compilations() == 0
    assert (copy.folder / "one.o").read_bytes() == first
    assert len(project.entries()) == 1


@needs_compiler
def test_whatever_changes_the_object_is_compiled(project: Project) -> None:
    project.compile()
    (project.folder / "include" / "one.h").write_text("enum { ONE = 2 };\n", encoding="utf-8")
    project.compile()
    assert project.compilations() == 2
    project.compile("-O2")
    assert project.compilations() == 3
    project.compile("-DONE=7")
    assert project.compilations() == 4
    with project.compiler.open("a", encoding="utf-8") as compiler:
        compiler.write("# another release of the compiler\n")
    project.compile()
    assert project.compilations() == 5
    (project.folder / "one.c").write_text("/* a comment, and no more */\n#include \"one.h\"\nint one(void) "
                                          "{ return ONE; }\n", encoding="utf-8")  # fmt: skip
    project.compile()
    assert project.compilations() == 5


@needs_compiler
def test_debug_information_names_folders_and_is_not_shared(project: Project, tmp_path: Path) -> None:
    project.compile("-g")
    project.compile("-g")
    assert project.compilations() == 1
    copy = Project(tmp_path / "elsewhere", project.cache)
    copy.compile("-g")
    assert copy.compilations() == 1
    copy.compile("-g", "-g0")
    project.compile("-g", "-g0")
    assert (copy.compilations(), project.compilations()) == (2, 1)


@needs_compiler
def test_a_missing_header_and_an_error_are_those_of_the_compiler(project: Project) -> None:
    project.compile()
    (project.folder / "include" / "one.h").unlink()
    failed = project.compile()
    assert failed.returncode == 1
    assert "one.h" in failed.stderr + failed.stdout
    assert len(project.entries()) == 1


@needs_compiler
def test_a_warning_is_printed_every_time(project: Project) -> None:
    (project.folder / "one.c").write_text("int one(void) { int unused; return 1; }\n", encoding="utf-8")
    for _ in range(2):
        done = project.compile("-Wall")
        assert done.returncode == 0
        assert "unused" in done.stdout + done.stderr
    assert project.entries() == []


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder"])
def test_a_damaged_entry_is_made_again(project: Project, damage: str) -> None:
    project.compile()
    good = (project.folder / "one.o").read_bytes()
    (entry,) = project.entries()
    whole = entry.read_bytes()
    if damage == "folder":
        entry.unlink()
        entry.mkdir()
    else:
        flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
        entry.write_bytes({"cut": whole[:-1], "flipped": flipped, "empty": b""}[damage])
    assert project.compile().returncode == 0
    assert project.compilations() == 2
    assert (project.folder / "one.o").read_bytes() == good
    if damage != "folder":
        assert entry.read_bytes() == whole


@needs_compiler
def test_a_folder_that_cannot_be_used_costs_time_only(project: Project) -> None:
    project.cache.write_text("a file where the folder should be", encoding="utf-8")
    for count in (1, 2):
        done = project.compile()
        assert done.returncode == 0
        assert "was not written" in done.stderr
        assert project.compilations() == count
    assert (project.folder / "one.o").exists()


@needs_compiler
def test_two_builds_at_once(project: Project, tmp_path: Path) -> None:
    others = [Project(tmp_path / f"copy{i}", project.cache) for i in range(4)]
    command = [sys.executable, "-I", "-S", TOOL, project.cache, project.compiler]
    arguments = ["-O1", "-Iinclude", "-c", "one.c", "-o", "one.o"]
    running = [subprocess.Popen([*map(str, command), *arguments], cwd=other.folder) for other in others]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert len({(other.folder / "one.o").read_bytes() for other in others}) == 1
    assert len(project.entries()) == 1


@needs_compiler
def test_calls_that_make_no_object_pass_through(project: Project) -> None:
    assert project.call("-E", "-Iinclude", "one.c").stdout.count("int one(void)") == 1
    assert project.compile("-MMD").returncode == 0
    assert (project.folder / "one.d").exists()
    assert project.call("-shared", "one.o", "-o", "one.so").returncode == 0
    assert project.entries() == []


@pytest.mark.parametrize(
    "words",
    ["-c one.c", "-c one.c two.c -o one.o", "-c one.s -o one.o", "one.c -o one", "-c one.c -march=native -o one.o",
     "-c one.c -MD -o one.o", "-c one.c -o one.o @more", "-c one.c -fprofile-use -o one.o", "gcc -c one.c -o one.o"],
)  # fmt: skip
def test_calls_whose_object_is_not_told_by_the_text(tool: ModuleType, words: str) -> None:
    assert tool.split(words.split()) is None


def test_a_call_is_taken_apart(tool: ModuleType) -> None:
    words = ["-O3", "-I", "here", "-Ithere", "-DA=1", "-D", "B", "-c", "one.c", "-o", "one.o", "-Wall"]
    assert tool.split(words) == (["-O3", "-Wall"], ["-I", "here", "-Ithere", "-DA=1", "-D", "B"], "one.c", "one.o")


def test_what_nothing_uses_goes(tool: ModuleType, tmp_path: Path) -> None:
    old, new = tool.digest("old"), tool.digest("new")
    for key in (old, new):
        tool.store(tmp_path, key, key.encode())
    long_ago = time.time() - 30 * 86_400
    for path in tmp_path.glob("*/*"):
        os.utime(path, (long_ago, long_ago))
    assert tool.fetch(tmp_path, new) == new.encode()
    tool.prune(tmp_path)
    assert tool.fetch(tmp_path, new) == new.encode()
    assert tool.fetch(tmp_path, old) is None
    tool.prune(tmp_path / "nowhere")
