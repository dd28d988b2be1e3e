"""The bench table: ratios, merging, comparison, and that `pytest bench` finds benches and records the machine."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import REPOSITORY


@pytest.fixture(scope="module")
def summary() -> ModuleType:
    path = REPOSITORY / "bench" / "summary.py"
    if not path.exists():
        pytest.skip("bench/ is not part of this installation")
    spec = importlib.util.spec_from_file_location("bench_summary", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def bench(group: str | None, name: str, minimum: float, median: float, **extra: float) -> dict[str, Any]:
    stats = {"min": minimum, "median": median}
    return {"group": group, "name": name, "fullname": f"bench_x.py::{name}", "stats": stats, "extra_info": dict(extra)}


def results(*benches: dict[str, Any]) -> dict[str, Any]:
    info = {"cpu": "a chip", "cores": 2, "isa": "avx2", "compiler": "a compiler", "flags": "-O3", "python": "3.12"}
    return {
        "benchmarks": list(benches),
        "machine_info": {"tengri": info},
        "commit_info": {"short": "abc", "uncommitted_changes": True},
        "datetime": "2026-01-01",
    }


def lines(summary: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert summary.main([str(a) for a in arguments]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_one_table_with_groups_and_ratios(
    summary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "latest.json"
    data = results(
        bench("gate", "test_rival", 8e-6, 9e-6, p50_ns=9000.0, p99_ns=9500.0, p999_ns=30_000.0, min_ns=7000.0),
        # Rounds need not be calls, so a minimum that was not recorded is not taken from them, however small.
        bench("gate", "test_ours[fast_path]", 2.9e-9, 3e-9, p50_ns=3000.0, p99_ns=4000.0, p999_ns=5000.0),
        bench(None, "bench_alone", 1e-3, 2e-3),
    )
    path.write_text(json.dumps(data))
    found = lines(summary, capsys, path)
    assert "ours [fast_path] 3 µs 4 µs 5 µs – 1.00x 3.00x" in found
    assert "rival 9 µs 9.5 µs 30 µs 7 µs 3.00x 1.00x" in found
    assert "alone 2 ms – – 1 ms – –" in found
    assert found.index("gate") < found.index("ours [fast_path] 3 µs 4 µs 5 µs – 1.00x 3.00x") < found.index("no group")
    assert "a chip, 2 cores, ISA avx2" in found
    assert "commit abc with uncommitted changes, 2026-01-01" in found


def test_ratios_go_into_the_file(summary: ModuleType) -> None:
    data = results(bench("g", "a", 1e-6, 2e-6), bench("g", "b", 1e-6, 5e-6), bench("h", "c", 1e-6, 0.0))
    summary.add_ratios(data)
    found = [(b["extra_info"]["vs_fastest"], b["extra_info"]["vs_slowest"]) for b in data["benchmarks"]]
    assert found == [(1.0, 2.5), (2.5, 1.0), (1.0, 1.0)]


def test_comparison_is_by_the_minima(summary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    committed = tmp_path / "committed"
    committed.mkdir()
    first = results(bench("g", "same", 1e-6, 9.0), bench("g", "worse", 9e-6, 9.0), bench("g", "gone", 1e-6, 1.0))
    (committed / "a.json").write_text(json.dumps(first))
    (committed / "b.json").write_text(json.dumps(results(bench("g", "worse", 2e-6, 9.0))))
    new = tmp_path / "new.json"
    new.write_text(
        json.dumps(
            results(bench("g", "same", 1.05e-6, 1.0), bench("g", "worse", 3e-6, 1.0), bench("g", "born", 1e-6, 1.0))
        )
    )
    found = lines(summary, capsys, "--compare", committed, new)
    assert "same 1 µs 1.05 µs 1.05x" in found
    assert "worse 2 µs 3 µs 1.50x slower" in found
    assert "gone 1 µs – – only old" in found
    assert "born – 1 µs – only new" in found
    assert not any("machines differ" in line for line in found)
    back = lines(summary, capsys, "--compare", new, committed)
    assert "worse 3 µs 2 µs 0.67x faster" in back


def test_comparison_takes_recorded_minima_and_never_mixes_them_with_rounds(
    summary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, before = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "before.json"
    old.write_text(json.dumps(results(bench("g", "a", 1e-6, 1e-6, p50_ns=900.0, min_ns=500.0))))
    new.write_text(json.dumps(results(bench("g", "a", 5e-6, 5e-6, p50_ns=300.0, min_ns=250.0))))
    before.write_text(json.dumps(results(bench("g", "a", 5e-6, 5e-6, p50_ns=300.0))))
    assert "a 500 ns 250 ns 0.50x faster" in lines(summary, capsys, "--compare", old, new)
    assert "a 5 µs 1 µs 0.20x faster" in lines(summary, capsys, "--compare", before, old)


def test_markdown_names_what_a_ratio_compares_with(
    summary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = bench("g", "test_ours[a|b]", 1.0, 1.0, p50_ns=50.0, p99_ns=60.0, p999_ns=70.0, min_ns=40.0)
    ours["extra_info"]["min_over"] = {"the rival": 0.08, "nothing": 1.25}
    path = tmp_path / "latest.json"
    path.write_text(json.dumps(results(ours, bench("g", "test_rival", 1.0, 1.0, p50_ns=600.0, min_ns=500.0))))
    found = lines(summary, capsys, path, "--markdown")
    assert found[0] == "| group | row | p50 | p99 | p99.9 | min | ratio |"
    ratio = "12.5x faster than the rival; 1.25x the time of nothing"
    assert found[2] == f"| g | ours [a\\|b] | 50 ns | 60 ns | 70 ns | 40 ns | {ratio} |"
    assert found[3] == "| g | rival | 600 ns | – | – | 500 ns | 12x the time of the fastest |"
    assert found[4] == ""
    assert found[5] == "a chip, 2 cores, ISA avx2"


def test_what_is_kept_is_slim_and_names_no_host_and_no_folder(
    summary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = results(bench("g", "a", 1e-6, 1e-6, p50_ns=900.0, min_ns=500.0))
    machine = data["machine_info"]
    machine |= {"node": "trader-7", "release": "1-trader-7", "cpu": {"brand_raw": "a chip", "flags": ["x"]}}
    data["commit_info"]["project"] = "folder"
    data["benchmarks"][0]["stats"]["data"] = [1e-6] * 1000
    data["benchmarks"][0]["extra_info"]["machine"] = dict(machine["tengri"])
    source, kept = tmp_path / "latest.json", tmp_path / "committed" / "bench.json"
    source.write_text(json.dumps(data))
    lines(summary, capsys, "--keep", source, "--into", kept)
    text = kept.read_text(encoding="utf-8")
    assert "trader-7" not in text
    assert "folder" not in text
    found = json.loads(text)
    assert "data" not in found["benchmarks"][0]["stats"]
    assert found["benchmarks"][0]["extra_info"] == {"p50_ns": 900.0, "min_ns": 500.0}
    assert found["machine_info"]["tengri"] == machine["tengri"]
    assert [path.name for path in kept.parent.iterdir()] == ["bench.json"]
    # The soak's result lies in the same folder and is not a table of benches.
    (kept.parent / "soak.json").write_text('{"kind": "soak"}')
    assert "a 500 ns 500 ns 1.00x" in lines(summary, capsys, "--compare", kept.parent, source)
    for leak in ("built in /opt/somewhere/tengri", "measured on trader-7", "C:\\Users\\me"):
        data["benchmarks"][0]["extra_info"]["note"] = leak
        source.write_text(json.dumps(data))
        assert summary.main(["--keep", str(source), "--into", str(kept)]) == 2
        assert "would be kept" in capsys.readouterr().err
    assert kept.read_text(encoding="utf-8") == text


def test_another_machine_is_pointed_out(
    summary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = results(bench("g", "a", 1e-6, 1e-6)), results(bench("g", "a", 1e-6, 1e-6))
    new["machine_info"]["tengri"]["isa"] = "scalar"
    for name, data in (("old", old), ("new", new)):
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    found = lines(summary, capsys, "--compare", tmp_path / "old.json", tmp_path / "new.json")
    assert any("The machines differ" in line for line in found)


def test_missing_and_damaged_files_are_named(
    summary: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text('{"benchmarks": [{"name": "x"}]}')
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("gone.json", "cannot be read"),
        ("bad.json", "is not a pytest-benchmark result"),
        ("other.json", "is not a pytest-benchmark result"),
        ("empty", "no results in"),
    ):
        assert summary.main([str(tmp_path / name)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        summary.main([])


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0.4, "0.4 ns"), (153.2, "153 ns"), (1830, "1.83 µs"), (4.1e6, "4.1 ms"), (2e9, "2 s "), (math.nan, "–")],
)
def test_times_read_well(summary: ModuleType, ns: float, text: str) -> None:
    assert summary.time_text(ns) == text


def test_every_bench_is_collected_and_none_times_nothing(summary: ModuleType) -> None:
    files = sorted((REPOSITORY / "bench").glob("bench_*.py"))
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert re.search(r"^def test_", text, re.MULTILINE), f"pytest collects nothing from {file.name}"
        assert not re.search(r"^def bench_", text, re.MULTILINE), (
            f"{file.name} holds a function that pytest passes over"
        )
        assert not re.search(r"lambda[^:]*: None\b", text), f"{file.name} times a function that does nothing"


def test_pytest_finds_benches_and_records_the_machine(summary: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="it runs the benches")
    for name in ("conftest.py", "summary.py", "inference_table.py", "_measure.py"):
        shutil.copy(REPOSITORY / "bench" / name, tmp_path / name)
    (tmp_path / "bench_small.py").write_text(
        "import pytest\n"
        "from _measure import record\n"
        "@pytest.mark.benchmark(group='sums')\n"
        "@pytest.mark.parametrize('n', [10, 5000])\n"
        "def test_sum(benchmark, n):\n"
        "    benchmark.pedantic(sum, args=(range(n),), rounds=3)\n"
        "    record(benchmark, [n, n, n + 1])\n"
    )
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "--benchmark-only",
        f"--benchmark-json={tmp_path / 'out.json'}", str(tmp_path),
    ]  # fmt: skip
    # A worker of pytest-xdist must not tell this run that it is one too: that switches benchmarks off.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sums  2 rows" in done.stdout
    assert done.stdout.index("sums  2 rows") < done.stdout.index("2 passed")
    assert "Outliers" not in done.stdout
    data = json.loads((tmp_path / "out.json").read_text())
    assert set(data["machine_info"]["tengri"]) >= {"cpu", "compiler", "isa", "flags", "commit"}
    assert "short" in data["commit_info"]
    by_size = {b["params"]["n"]: b["extra_info"] for b in data["benchmarks"]}
    assert by_size[10]["p50_ns"] == 10
    assert by_size[5000]["vs_fastest"] == 500.0
    assert by_size[10]["vs_slowest"] == 500.0


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    path = REPOSITORY / "bench" / "soak.py"
    if not path.exists():
        pytest.skip("bench/ is not part of this installation")
    spec = importlib.util.spec_from_file_location("bench_soak", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutations_follow_from_seed_and_case_and_leave_the_weights_alone_mostly(soak: ModuleType) -> None:
    data = (soak.MODEL / "model.onnx").read_bytes()
    mutate, again = soak.Mutator(data, 5), soak.Mutator(data, 5)
    assert all(mutate(case) == again(case) for case in range(20))
    assert mutate(0) != soak.Mutator(data, 6)(0)
    assert sum(mutate(case) != data for case in range(50)) > 45
    # What is not weights is a small part of the file, and what the mutations are after.
    assert 0 < len(mutate.structure) < len(data) // 10


def test_the_soak_sees_a_portfolio_that_is_wrong(soak: ModuleType) -> None:
    shaker, found = soak.Shaker(3), soak.Violations()
    for _ in range(300):
        shaker.event()
    assert shaker.compare(found, "right") < 1e-9
    assert not found
    shaker.portfolio.on_fill("LIN00", 1.0, 100.0, strategy_id="S1", trade_id="not in the ledger")
    shaker.compare(found, "wrong")
    assert "case filled" in found.texts[0]


def test_a_violation_fails_the_soak_and_is_written(
    soak: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_part(part: str, seconds: float, seed: int) -> dict[str, Any]:
        return {"seconds": seconds, "violations": int(part == "loader"), "violation_texts": [], "seed": seed}

    monkeypatch.setattr(soak, "run_part", run_part)
    out = tmp_path / "soak.json"
    assert soak.main(["--minutes", "0.5", "--seed", "9", "--out", str(out)]) == 1
    found = json.loads(out.read_text())
    assert found["kind"] == "soak"
    assert found["violations"] == 1
    assert (found["engine"]["seconds"], found["loader"]["seed"]) == (12.0, 9)
    assert {"cpu", "isa", "commit"} <= set(found["machine"])
    assert "1 violation;" in capsys.readouterr().out


def test_a_part_that_dies_is_a_violation(soak: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, pathlib, sys\n"
        "pathlib.Path(sys.argv[sys.argv.index('--mark') + 1]).write_text('%20d' % 17)\n"
        "os.abort()\n"
    )
    monkeypatch.setattr(soak, "__file__", str(script))
    found = soak.run_part("loader", 1.0, 1)
    assert found["violations"] == 1
    assert found["violation_texts"] == ["the process ended with status -6 in case 17"]
