"""libtengri built, installed and used as a C program would: its answers are those of the Python engine, bit for bit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import REPOSITORY

from tengri_fast.features import FeaturePlan, parse_spec
from tengri_fast.inference import Model
from tengri_fast.market import read_quotes, read_trades
from tengri_fast.runtime.model_spec import load_model_spec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in ("make", "cc", "ar", "nm", "pkg-config")),
        reason="make, cc, ar, nm and pkg-config are needed",
    ),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the shared library is built for Linux"),
]

MODEL = REPOSITORY / "models" / "lstm_btcusdt"
DAY = "20240719"
ISAS = ("scalar", "best")


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed library. -O1 for speed: without -ffast-math no level changes a bit of the answers."""
    folder = tmp_path_factory.mktemp("lib")
    run(
        "make", f"-j{os.cpu_count() or 1}", "-C", REPOSITORY / "csrc", "install", f"BUILD_DIR={folder / 'build'}",
        f"PREFIX={folder / 'prefix'}", "OPTIMISE=-O1 -DNDEBUG",
    )  # fmt: skip
    return folder / "prefix"


@pytest.fixture(scope="module")
def flags(prefix: Path) -> list[str]:
    out = run("pkg-config", "--cflags", "--libs", "tengri", env={"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")})
    return [*out.split(), f"-Wl,-rpath,{prefix / 'lib'}"]


def declared() -> set[str]:
    """Functions of the public headers, without those defined in them."""
    names = set()
    for path in sorted((REPOSITORY / "csrc" / "include").rglob("*.h")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        inline = set(re.findall(r"static inline [a-z0-9_ ]*?(tf_[a-z0-9_]+)\(", text))
        names |= set(re.findall(r"^[a-z][a-z0-9_ ]*[ *](tf_[a-z0-9_]+)\(", text, flags=re.MULTILINE)) - inline
    return names


def test_exports_what_the_headers_declare_and_nothing_else(prefix: Path) -> None:
    lines = run("nm", "-D", "--defined-only", prefix / "lib" / "libtengri.so").splitlines()
    exported = {line.split()[-1] for line in lines}
    assert len(exported) > 60
    assert exported == declared()


def test_installed_headers_and_names(prefix: Path) -> None:
    headers = {path.name for path in (prefix / "include").rglob("*.h")}
    assert headers == {path.name for path in (REPOSITORY / "csrc" / "include").rglob("*.h")}
    version = run(sys.executable, "-c", "import tengri_fast; print(tengri_fast.__version__)").strip()
    assert (prefix / "lib" / f"libtengri.so.{version}").is_file()
    assert (prefix / "lib" / "libtengri.so").resolve().name == f"libtengri.so.{version}"
    out = run("pkg-config", "--modversion", "tengri", env={"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")})
    assert out.strip() == version


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyarrow", reason="pyarrow reads the sample")
    folder = tmp_path_factory.mktemp("inputs")
    run(sys.executable, REPOSITORY / "examples" / "c" / "prepare.py", "--out", folder, "--day", DAY)
    return folder


def python_answers(isa: str | None) -> np.ndarray:
    """The same day through the Python faces of features and model."""
    spec = load_model_spec(MODEL)
    plan = FeaturePlan([parse_spec(text) for text in spec.inputs.features]).with_normalisation(
        np.array(spec.normalisation.mean), np.array(spec.normalisation.scale), spec.normalisation.clip
    )
    sample = REPOSITORY / "data" / "binance_usdm_btcusdt" / f"binance_usdm_btcusdt_{DAY}"
    rows = plan.compute(read_quotes(f"{sample}.quotes.parquet"), read_trades(f"{sample}.trades.parquet"))
    x = plan.normalise(rows.values[rows.ready])
    assert len(x) > 30_000
    return Model.from_onnx(MODEL / spec.onnx, isa=isa).run_window(x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("target", ["tick_signal", "static"])
def test_example_answers_as_python_does(prefix: Path, inputs: Path, tmp_path: Path, isa: str, target: str) -> None:
    for name in ("tick_signal.c", "Makefile"):
        shutil.copy(REPOSITORY / "examples" / "c" / name, tmp_path)
    pkg_config = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    run("make", "-C", tmp_path, target, "CFLAGS=-O2 -Wall -Wextra -Werror", env=pkg_config)
    answers = tmp_path / "answers.f32"
    out = run(
        tmp_path / "tick_signal", *(inputs / name for name in ("model.tgp", "features.csv", "ticks.csv")), answers,
        env={"TENGRI_ISA": "" if isa == "best" else isa},
    )  # fmt: skip
    assert re.search(r"tick to answer +p50 +\d+ ns +p99 +\d+ ns +p99.9 +\d+ ns +max +\d+ ns", out), out
    want = python_answers(None if isa == "best" else isa)
    got = np.fromfile(answers, np.float32).reshape(-1, want.shape[1])
    assert got.shape == want.shape
    assert np.array_equal(got.view(np.uint32), want.view(np.uint32))
    assert np.ptp(got, axis=0).min() > 0.1, "the answers must move"


def test_example_says_what_is_wrong(prefix: Path, inputs: Path, tmp_path: Path) -> None:
    for name in ("tick_signal.c", "Makefile"):
        shutil.copy(REPOSITORY / "examples" / "c" / name, tmp_path)
    run("make", "-C", tmp_path, env={"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")})
    whole = (inputs / "model.tgp").read_bytes()
    damaged = tmp_path / "damaged.tgp"
    damaged.write_bytes(whole[:-1])
    for model, words in ((damaged, "truncated"), (tmp_path / "none.tgp", "`path`"), (tmp_path, "regular file")):
        result = subprocess.run(
            [tmp_path / "tick_signal", model, inputs / "features.csv", inputs / "ticks.csv"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert words in result.stderr


def test_program_of_the_documentation(flags: list[str], inputs: Path, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "c_api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```c\n(.*?)```", text, flags=re.DOTALL)
    programs = [block for block in blocks if "int main" in block]
    assert len(programs) == 1
    (tmp_path / "app.c").write_text(programs[0], encoding="utf-8")
    run("cc", "-Wall", "-Wextra", "-Werror", tmp_path / "app.c", "-o", tmp_path / "app", *flags)
    out = run(tmp_path / "app", inputs / "model.tgp")
    model = Model.from_onnx(MODEL / "model.onnx")
    steps = np.float32(0.1) * (np.arange(10)[:, None] - np.arange(model.input_size)[None, :]).astype(np.float32)
    assert np.array_equal(np.array([line.split() for line in out.splitlines()], np.float32), model.run_window(steps))


def test_fragment_of_the_documentation(flags: list[str], tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "c_api.md").read_text(encoding="utf-8")
    fragments = [block for block in re.findall(r"```c\n(.*?)```", text, flags=re.DOTALL) if "int main" not in block]
    assert len(fragments) == 1
    (tmp_path / "app.c").write_text(
        "#include <math.h>\n#include <stdio.h>\n#include <tengri.h>\n"
        "int main(void) {\n"
        "float returns[1000];\nfor (int s = 0; s < 1000; s++) returns[s] = 1e-4f * (float)(s - 500);\n"
        "uint64_t now = 1;\n" + fragments[0] + "return culprit == 7;\n}\n",
        encoding="utf-8",
    )
    run("cc", "-Wall", "-Wextra", tmp_path / "app.c", "-o", tmp_path / "app", *flags, "-lm")
    filled, with_order = (tuple(map(float, line.split())) for line in run(tmp_path / "app").splitlines())
    # 50 and 60 units at 100, and the 11th worst of a thousand evenly spaced returns: -4.9 %.
    assert filled == pytest.approx((245.0, 247.75), rel=1e-4)
    assert with_order == pytest.approx((294.0, 297.3), rel=1e-4)
