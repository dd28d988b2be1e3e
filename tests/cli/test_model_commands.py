"""``tengri quantize``, ``prune``, ``compile``, ``inspect`` and ``bench``."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from model_networks import network, rows, tcn
from support import sample_data

from tengri_fast.cli import main
from tengri_fast.cli.acceptance_page import rows_of, write_pages
from tengri_fast.cli.model_files import load_network, load_rows, split_rows
from tengri_fast.errors import ConfigurationError
from tengri_fast.inference.acceptance import Limits, accept
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.inference.canonical_reader import read_canonical
from tengri_fast.inference.layers import ConvLayer
from tengri_fast.inference.network import chain
from tengri_fast.inference.quantize import quantize
from tengri_fast.models import model_path

session = pytest.importorskip("tengri_fast.inference.session")


def call(*words: Any) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a small float model and rows for it."""
    (tmp_path / "lstm.onnx").write_bytes(write_canonical(network("lstm")))
    np.save(tmp_path / "rows.npy", rows(1_500))
    return tmp_path


# ---------------------------------------------------------------- quantize


@pytest.mark.parametrize("number_format", ["int8", "int8a16", "fp16", "bf16"])
def test_quantize_writes_the_artefact_and_its_reports(place, number_format):
    result = call(
        "quantize",
        place / "lstm.onnx",
        "--calibration",
        place / "rows.npy",
        "--format",
        number_format,
        "-o",
        place / "out.onnx",
        "--max-relative-error",
        0.1,
        "--max-flips",
        0.05,
    )
    assert result.exit_code == 0, result.output
    made = read_canonical((place / "out.onnx").read_bytes())
    assert made.format == number_format
    assert made.metadata["acceptance"] == "blessed"
    source = load_network(place / "lstm.onnx")
    assert made.metadata["source_sha256"] == source.sha256
    record = json.loads((place / "out.report.json").read_text())
    assert record["verdict"] == "blessed"
    assert record["acceptance"]["engine"] == "native"
    assert record["acceptance"]["rows"] == 450
    assert record["acceptance"]["limits"]["relative_error"] == 0.1
    assert record["acceptance"]["latency_after"]["step_p50"] > 0
    assert record["facts"]["Rows"] == "first 1,050 rows to calibrate, last 450 held out (30%)"
    assert "decision flips" in result.stdout
    assert "out.report.html" in result.stdout.replace("\n", "")
    # What the engine reads is what was judged.
    x = rows(100, seed=5)
    expected = session.Model.from_network(made).run_window(x)
    np.testing.assert_array_equal(session.Model.from_onnx(place / "out.onnx").run_window(x), expected)


def test_a_refused_model_is_not_written(place):
    (place / "out.onnx").write_bytes(b"the old one")
    words = (
        "quantize",
        place / "lstm.onnx",
        "--calibration",
        place / "rows.npy",
        "-o",
        place / "out.onnx",
        "--max-relative-error",
        1e-6,
    )
    result = call(*words)
    assert result.exit_code == 1
    assert "Refused: relative rms error must be <= 1e-06, was 0.0" in result.stderr
    assert "is left as it was" in result.stderr
    assert (place / "out.onnx").read_bytes() == b"the old one"
    assert json.loads((place / "out.report.json").read_text())["verdict"] == "refused"
    forced = call(*words, "--force")
    assert forced.exit_code == 0
    assert "Warning: " in forced.stderr
    made = read_canonical((place / "out.onnx").read_bytes())
    assert made.metadata["acceptance"].startswith("forced: relative rms error")
    assert json.loads((place / "out.report.json").read_text())["verdict"] == "written although refused (--force)"


def test_quantize_is_deterministic_but_for_times(place):
    written = []
    for name in ("a", "b"):
        call(
            "quantize",
            place / "lstm.onnx",
            "--calibration",
            place / "rows.npy",
            "-o",
            place / f"{name}.onnx",
            "-q",
            "--max-relative-error",
            0.2,
            "--max-flips",
            0.1,
        )
        written.append((place / f"{name}.onnx").read_bytes())
    assert written[0] == written[1]


def test_quantize_options_reach_the_work(place):
    result = call(
        "quantize",
        place / "lstm.onnx",
        "--calibration",
        place / "rows.npy",
        "-o",
        place / "out.onnx",
        "--keep",
        "head",
        "--method",
        "percentile",
        "--percentile",
        99.9,
        "--weights",
        "absmax",
        "--bias-correction",
        "--force",
        "-q",
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    made = json.loads((place / "out.report.json").read_text())["made"]
    assert (made["method"], made["percentile"], made["weights"], made["bias_correction"]) == (
        "percentile",
        99.9,
        "absmax",
        True,
    )
    assert [layer["kept"] for layer in made["layers"]] == [False, False, True]


def test_quantize_a_model_of_the_zoo_on_market_data(tmp_path):
    pytest.importorskip("pyarrow")
    day, other = "binance_usdm_btcusdt_20230404", "binance_usdm_btcusdt_20240718"
    words: list[Any] = ["quantize", "lstm_btcusdt", "-o", tmp_path / "int8.onnx"]
    for name, option in ((day, "--calibration"), (other, "--held-out")):
        for kind in ("quotes", "trades"):
            words += [option, sample_data(f"{name}.{kind}.parquet")]
    result = call(*words)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "int8.report.json").read_text())
    assert record["acceptance"]["rows"] > 1_000
    assert record["acceptance"]["flips"] < 0.01
    assert "lstm_btcusdt in int8" in result.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "`calibration` must be given at least once"),
        (("--calibration", "few.npy"), "must hold at least 64 rows, held 5"),
        (("--calibration", "nan.npy"), "must be finite, was nan in row 3, column 1"),
        (("--calibration", "wide.npy"), r"must have 5 features, have shape [100, 6]"),
        (("--calibration", "rows.npy", "--held-out", "rows.npy"), "16 rows in a row are in both"),
        (("--calibration", "rows.npy", "--split", "1.5"), "`split` must lie in (0, 1), was 1.5"),
        (("--calibration", "text.npy"), "cannot be read as arrays"),
        (("--calibration", "rows.csv"), "must be .npy, .npz or .parquet, was .csv"),
        (("--calibration", "btc.quotes.parquet"), "`features` must name a model.toml"),
        (("--calibration", "rows.npy", "--max-flips", "-1"), "limit `flips` must be >= 0 and finite, was -1"),
        (("--calibration", "rows.npy", "--keep", "ghost"), "`keep` must name layers"),
    ],
)
def test_what_quantize_refuses_is_a_sentence(place, monkeypatch, words, text):
    monkeypatch.chdir(place)
    np.save("few.npy", rows(7))
    broken = rows(200)
    broken[3, 1] = np.nan
    np.save("nan.npy", broken)
    np.save("wide.npy", rows(100, 6))
    Path("text.npy").write_text("no array")
    Path("rows.csv").write_text("1,2")
    Path("btc.quotes.parquet").write_text("")
    result = call("quantize", "lstm.onnx", "-o", "out.onnx", *words)
    assert result.exit_code == 2, result.output
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("out.onnx").exists()
    assert not Path("out.report.json").exists()


def test_a_quantised_model_is_not_quantised_again(place):
    made, _ = quantize(network("lstm"), "int8", rows(200))
    (place / "small.onnx").write_bytes(write_canonical(made))
    result = call("quantize", place / "small.onnx", "--calibration", place / "rows.npy", "-o", place / "out.onnx")
    assert result.exit_code == 2
    assert "begin with the float model" in result.stderr


def test_a_strided_model_is_refused_before_anything_is_written(place):
    rng = np.random.default_rng(0)
    net = chain([ConvLayer(rng.normal(size=(2, 3, 5)), np.zeros(3), stride=2, name="halve")])
    from tengri_fast.cli import model_files

    loaded = model_files.LoadedNetwork(net, place / "x.onnx", "0" * 64, 1, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_files, "load_network", lambda _: loaded)
        result = call(
            "quantize", place / "x.onnx", "--calibration", place / "rows.npy", "-o", place / "out.onnx", "--force"
        )
    assert result.exit_code == 2
    assert "layer `halve`: `stride` must be 1" in result.stderr
    assert sorted(path.name for path in place.iterdir()) == ["lstm.onnx", "rows.npy"]


# ---------------------------------------------------------------- rows


def test_rows_from_every_kind_of_file(tmp_path):
    x = rows(90)
    np.save(tmp_path / "a.npy", x.astype(np.float64))
    np.save(tmp_path / "b.npy", x.reshape(3, 30, 5))
    np.savez(tmp_path / "c.npz", x=x, y=np.zeros(3))
    np.savez(tmp_path / "d.npz", x10=x[:10], x2=x[10:])
    np.savez(tmp_path / "e.npz", only=x)
    found = load_rows(
        [
            tmp_path / f"{name}.{kind}"
            for name, kind in (("a", "npy"), ("b", "npy"), ("c", "npz"), ("d", "npz"), ("e", "npz"))
        ],
        None,
        5,
    )
    assert [len(part) for part in found] == [90, 30, 30, 30, 90, 80, 10, 90]
    np.testing.assert_array_equal(found[0], x)
    assert all(part.dtype == np.float32 for part in found)
    np.savez(tmp_path / "f.npz", one=x, two=x)
    with pytest.raises(ConfigurationError, match=r"must hold an array `x`, .* held one, two"):
        load_rows([tmp_path / "f.npz"], None, 5)
    np.save(tmp_path / "g.npy", np.array(["a"]))
    with pytest.raises(ConfigurationError, match="must hold numbers"):
        load_rows([tmp_path / "g.npy"], None, 5)
    np.save(tmp_path / "h.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigurationError, match="cannot be read as arrays"):
        load_rows([tmp_path / "h.npy"], None, 5)


def test_rows_from_a_table(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    x = rows(80)
    table = arrow.table({f"f{i}": x[:, i] for i in range(5)})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    np.testing.assert_array_equal(load_rows([tmp_path / "rows.parquet"], None, 5)[0], x)
    pyarrow.parquet.write_table(arrow.table({"name": ["a", "b"]}), tmp_path / "text.parquet")
    with pytest.raises(ConfigurationError, match="column `name` must hold numbers"):
        load_rows([tmp_path / "text.parquet"], None, 5)


def test_market_data_gives_the_rows_that_the_model_sees():
    pytest.importorskip("pyarrow")
    from tengri_fast.runtime.model_spec import load_bundle

    spec = model_path("lstm_btcusdt")
    files = [sample_data(f"binance_usdm_btcusdt_20240719.{kind}.parquet") for kind in ("quotes", "trades")]
    (found,) = load_rows(files, spec, 12)
    bundle = load_bundle(spec)
    from tengri_fast.market import read_quotes, read_trades

    out = bundle.plan.compute(read_quotes(files[0]), read_trades(files[1]), None, clock="quote")
    norm = bundle.spec.normalisation
    z = np.clip((out.values - norm.mean) / norm.scale, -norm.clip, norm.clip).astype(np.float32)
    np.testing.assert_array_equal(found, z[out.ready])


def test_the_split_cuts_at_the_end():
    parts = [rows(100, seed=1), rows(50, seed=2)]
    found = split_rows(parts, [], 0.4)
    assert [len(part) for part in found.calibration] == [90]
    assert [len(part) for part in found.held_out] == [10, 50]
    np.testing.assert_array_equal(found.held_out[0], parts[0][90:])
    given = split_rows(parts[:1], parts[1:], 0.4)
    assert given.how == "100 rows to calibrate, 50 held out, as given"


# ---------------------------------------------------------------- the page


class Balanced(html.parser.HTMLParser):
    """Fails on a tag that is not closed in order."""

    VOID = ("meta", "br", "circle", "rect", "line", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") or (name in ("src", "href")) for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_escapes_what_it_is_told(tmp_path):
    net = network("wavenet")
    made, report = quantize(net, "int8", rows(300))
    found = accept(net, made, rows(200, seed=3), timed=60, limits=Limits(None, None, None))
    hostile = "<script>alert(1)</script>"
    paths = write_pages(
        tmp_path / "x",
        hostile,
        found,
        {**report.to_dict(), "notes": [hostile]},
        {"Source": hostile},
        [("Layers", ("a",), [(hostile,)])],
        False,
    )
    page = Balanced()
    page.feed(paths[1].read_text())
    assert page.open == []
    assert page.text.count(hostile) == 5
    assert "<script" not in paths[1].read_text()
    assert json.loads(paths[0].read_text())["acceptance"]["blessed"] is True


def test_the_table_names_the_limit_that_was_exceeded():
    net = network("lstm")
    made, _ = quantize(net, "int8", rows(300))
    found = accept(net, made, rows(200, seed=3), timed=0, limits=Limits(flips=None, relative_error=1e-9))
    table = {row[0]: row[1:] for row in rows_of(found)}
    assert table["relative rms error"][1:] == ("<= 0.00 %", "too large")
    assert table["decision flips"][1:] == ("not judged", "")
    assert table["latency"][0] == "not measured: not asked for"


# ---------------------------------------------------------------- prune


def test_prune_writes_a_smaller_model(place):
    np.save(place / "rows.npy", rows(1_500))
    (place / "tcn.onnx").write_bytes(write_canonical(tcn(np.random.default_rng(0), 32, 2)))
    result = call(
        "prune",
        place / "tcn.onnx",
        "--target",
        0.5,
        "--calibration",
        place / "rows.npy",
        "-o",
        place / "out.onnx",
        "--force",
    )
    assert result.exit_code == 0, result.output
    made = read_canonical((place / "out.onnx").read_bytes())
    assert made.nodes[0].layer.output_size == 16
    record = json.loads((place / "out.report.json").read_text())
    assert record["made"]["families"][0] == {
        "name": "enter",
        "kind": "channels",
        "before": 32,
        "after": 16,
        "saliency_removed": record["made"]["families"][0]["saliency_removed"],
    }
    assert record["acceptance"]["parameters_after"] < record["acceptance"]["parameters_before"]


def test_prune_refuses_as_quantize_does(place):
    result = call(
        "prune", place / "lstm.onnx", "--pattern", "2:4", "--calibration", place / "rows.npy", "-o", place / "out.onnx"
    )
    assert result.exit_code == 1
    assert "Refused: " in result.stderr
    assert not (place / "out.onnx").exists()
    assert "neither its speed nor its size" in result.stdout.replace("\n", " ")
    result = call("prune", place / "lstm.onnx", "--calibration", place / "rows.npy", "-o", place / "out.onnx")
    assert result.exit_code == 2
    assert "one of `target`, `units` and `pattern` must be given" in result.stderr


# ---------------------------------------------------------------- compile


@pytest.mark.parametrize("number_format", [None, "bf16"])
def test_compile_gives_the_same_answers(place, number_format):
    words = [] if number_format is None else ["--format", number_format]
    result = call("compile", place / "lstm.onnx", "-o", place / "a.tgp", *words)
    assert result.exit_code == 0, result.output
    assert f"{(place / 'a.tgp').stat().st_size:,} bytes, {number_format or 'fp32'}, 3 layers" in result.stdout
    network_ = load_network(place / "lstm.onnx").network
    wanted = network_ if number_format is None else network_.converted(number_format)
    x = rows(50)
    compiled = session.Model.from_compiled(place / "a.tgp")
    np.testing.assert_array_equal(compiled.run_window(x), session.Model.from_network(wanted).run_window(x))
    again = call("compile", place / "a.tgp", "-o", place / "b.tgp")
    assert again.exit_code == 2
    assert "a compiled file cannot be taken apart" in again.stderr


# ---------------------------------------------------------------- inspect


def test_inspect_counts_what_is_there(place):
    result = call("inspect", place / "lstm.onnx", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    net = network("lstm")
    assert found["native"] is True
    assert found["declined"] is None
    assert [row["kind"] for row in found["layers"]] == ["lstm", "lstm", "dense"]
    weights = [sum(v.size for v in vars(node.layer).values() if isinstance(v, np.ndarray)) for node in net.nodes]
    assert [row["parameters"] for row in found["layers"]] == weights
    assert found["parameters"] == sum(weights)
    assert sum(row["critical_bytes"] for row in found["layers"]) == found["critical_bytes"]
    by_format = {row["format"]: row for row in found["formats"]}
    assert by_format["fp32"]["weight_bytes"] == 4 * sum(weights)
    assert by_format["int8"]["weight_bytes"] < by_format["fp16"]["weight_bytes"] < by_format["fp32"]["weight_bytes"]
    assert found["states"][0] == ["h0", [8]]
    level = next(row for row in found["bandwidth"] if row["level"] == found["floor_level"])
    assert found["floor_critical_ns"] == pytest.approx(
        found["critical_bytes"] / level["gb_per_second"], rel=0.02, abs=0.1
    )


def test_inspect_in_words(place):
    result = call("inspect", place / "lstm.onnx", "--no-floors")
    assert result.exit_code == 0, result.output
    assert "5 features in, 3 values out, fp32" in result.stdout
    assert "native on " in result.stdout
    assert "GB/s" not in result.stdout


def test_inspect_says_why_a_model_does_not_run_natively(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["y"], "wave")], "g", [value("x", 1, [1, 4])], [value("y", 1, [1, 4])]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]), tmp_path / "sin.onnx")
    result = call("inspect", tmp_path / "sin.onnx")
    assert result.exit_code == 0, result.output
    assert "not native:" in result.stdout
    assert "wave" in result.stdout
    found = json.loads(call("inspect", tmp_path / "sin.onnx", "--json").stdout)
    assert (found["native"], found["operators"]) == (False, {"Sin": 1})


def test_inspect_a_compiled_file(place):
    made, _ = quantize(network("lstm"), "int8", rows(200))
    session.Model.from_network(made).save(place / "a.tgp")
    found = json.loads(call("inspect", place / "a.tgp", "--json").stdout)
    assert (found["format"], [row["kind"] for row in found["layers"]]) == ("int8", ["lstm", "lstm", "dense"])
    assert call("inspect", place / "a.tgp").exit_code == 0


# ---------------------------------------------------------------- bench


def test_bench_has_a_row_for_every_circumstance(place):
    result = call(
        "bench", place / "lstm.onnx", "--steps", 200, "--rounds", 2, "--format", "fp32", "--format", "int8", "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    hows = {(row["who"], row["how"], row["part"]) for row in found["results"]}
    for number_format in ("fp32", "int8"):
        for how in ("back-to-back", "spaced 100 us", "after 2 ms idle", "cold caches", "from Python"):
            assert (f"tengri {number_format}", how, "critical") in hows
            assert (f"tengri {number_format}", how, "step") in hows
    assert {("timer", "no-op", "nothing"), ("canary", "fixed work", "chain")} <= hows
    for row in found["results"]:
        assert 0 < row["p50"] <= row["p99"] <= row["p99.9"] <= row["max"]
    rivals = {row["who"] for row in found["results"]} | {note.partition(":")[0] for note in found["notes"]}
    assert {"ONNX Runtime fp32", "OpenVINO fp32", "torch fp32", "ONNX Runtime int8"} <= rivals


def test_bench_in_words_and_on_given_rows(place):
    result = call(
        "bench",
        place / "lstm.onnx",
        "--steps",
        100,
        "--rounds",
        1,
        "--format",
        "bf16",
        "--no-rivals",
        "--rows",
        place / "rows.npy",
        "-q",
    )
    assert result.exit_code == 0, result.output
    assert "1,500 given rows, 1 interleaved rounds" in result.stdout
    assert "tengri bf16" in result.stdout
    assert result.stderr == ""


def test_bench_takes_a_quantised_model_as_it_is(place):
    made, _ = quantize(network("lstm"), "int8", rows(200))
    (place / "small.onnx").write_bytes(write_canonical(made))
    result = call(
        "bench", place / "small.onnx", "--steps", 100, "--rounds", 1, "--no-rivals", "--format", "fp32", "--json"
    )
    found = json.loads(result.stdout)
    assert {row["who"] for row in found["results"]} == {"timer", "canary", "tengri int8"}
    assert found["notes"] == ["the model is int8: other formats need the float model it was made from"]


def test_bench_runs_absolute_positions_windowed(place):
    (place / "gated.onnx").write_bytes(write_canonical(network("gated")))
    result = call(
        "bench", place / "gated.onnx", "--steps", 100, "--rounds", 1, "--no-rivals", "--format", "fp32", "--json"
    )
    assert result.exit_code == 0, result.output
    hows = [row["how"] for row in json.loads(result.stdout)["results"] if row["who"] == "tengri fp32"]
    assert hows == ["back-to-back", "back-to-back", "from Python", "from Python"]


def test_rivals_answer_as_we_do():
    from tengri_fast.cli.rivals import RIVALS, missing
    from tengri_fast.inference.evaluate import evaluate

    x = rows(40)
    measured = 0
    for package, make in RIVALS.values():
        if missing(package) is None:
            step = make(network("gru"))
            found = np.array([np.array(step(row)) for row in x])
            np.testing.assert_allclose(found, evaluate(network("gru"), x), atol=2e-6)
            measured += 1
    if not measured:
        pytest.skip("no other runtime is installed")


# ---------------------------------------------------------------- the machine


def test_the_machine_is_measured():
    from tengri_fast.inference.hardware import bandwidths, cache_sizes, floor_ns
    from tengri_fast.inference.machine import canary_times, measure_bandwidth, noop_times

    levels = bandwidths()
    assert levels[-1].name == "memory"
    assert all(level.gb_per_second > 0.1 for level in levels)
    assert levels is bandwidths()  # measured once
    assert floor_ns(0, 0)[0] == 0.0
    assert floor_ns(1 << 34, 1 << 34)[1].name == "memory"
    assert noop_times(100).shape == canary_times(100).shape == (100,)
    assert np.median(canary_times(50, length=4_000)) > np.median(canary_times(50, length=1_000))
    for wrong in (lambda: measure_bandwidth(10), lambda: noop_times(0), lambda: canary_times(1, length=0)):
        with pytest.raises(ValueError, match="must"):
            wrong()
    assert all(size > 0 for size in cache_sizes().values())


def test_cache_sizes_are_read_as_the_kernel_writes_them(tmp_path):
    from tengri_fast.inference.hardware import cache_sizes

    for index, (kind, level, size) in enumerate(
        (("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "2", "2M"))
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(text + "\n")
    (tmp_path / "index9").mkdir()
    assert cache_sizes(tmp_path) == {1: 48 << 10, 2: 2 << 20}
    assert cache_sizes(tmp_path / "nowhere") == {}
