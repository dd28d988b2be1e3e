"""The volatility study on simulated series: data, walk-forward, rivals without look-ahead, training that repeats."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from support import REPOSITORY, shared_data

from tengri_fast.errors import DataConversionError, MissingExtraError, ModelLoadingError
from tengri_fast.inference import Model
from tengri_fast.risk.measures import value_at_risk
from tengri_fast.training.recipe import training_python
from tengri_fast.training.volatility import SPLITS, Settings, Split, forecasts, test_rows, train_split
from tengri_fast.training.volatility_data import load_series, simulated_series
from tengri_fast.training.volatility_report import card, picture, replace_between, results
from tengri_fast.training.volatility_study import VAR_WINDOW, filtered_var, study

spans = test_rows
del test_rows  # pytest would take the name for a test

SPLIT = Split("tiny", "1992-09-01", ("1992-10-01", "1993-01-01"), ("1993-02-01", "1994-01-10"))
TINY = Settings(seeds=(1, 2), hidden=3, epochs=1, length=80, burn_in=16, batch=8, golden_steps=64)


def simulated():
    series = [dataclasses.replace(simulated_series(seed, 1480), name=f"S{seed}", group="stocks") for seed in (1, 2)]
    bars = dataclasses.replace(simulated_series(3, 1480, bars=True), name="SPY", group="index bars")
    return [*series, bars, dataclasses.replace(simulated_series(4, 1480), name="S&P 500", group="index closes")]


@pytest.fixture(scope="module")
def python():
    for candidate in (os.environ.get("TENGRI_TRAIN_PYTHON"), REPOSITORY / ".venv-train" / "bin" / "python"):
        if candidate and Path(candidate).exists():
            try:
                return training_python(str(candidate))
            except MissingExtraError:
                continue
    pytest.skip("no interpreter with PyTorch: set TENGRI_TRAIN_PYTHON or run `make train-env`")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, python):
    folder = tmp_path_factory.mktemp("volatility")
    lines = []
    answer = train_split(simulated(), SPLIT, folder, python, TINY, lines.append)
    assert [line.split(":")[1].strip() for line in lines] == ["seed 1", "seed 2", "merged"]
    return folder, answer


def test_the_merged_network_is_the_mean_of_its_parts_in_our_engine(trained):
    folder, answer = trained
    network = Model.from_onnx(folder / "model.onnx")
    parts = [Model.from_onnx(folder / f"part{k}.onnx") for k in range(2)]
    with np.load(folder / "golden.npz", allow_pickle=False) as stored:
        x, y = stored["x"], stored["y"]
    ours = network.run_window(x)
    np.testing.assert_allclose(ours, y, atol=2e-6)
    np.testing.assert_allclose(ours, np.mean([part.run_window(x) for part in parts], axis=0), atol=2e-6)
    assert np.abs(parts[0].run_window(x) - parts[1].run_window(x)).max() > 1e-3
    assert len(answer["held_out"]) == 2
    assert all(np.isfinite(answer["held_out"]))


def test_training_repeats_and_a_seed_matters(trained, tmp_path, python):
    folder, answer = trained
    again = train_split(simulated(), SPLIT, tmp_path, python, dataclasses.replace(TINY, seeds=(2,)), lambda _: None)
    # The second training of before, bit by bit, whatever stood beside it.
    assert (tmp_path / "part0.onnx").read_bytes() == (folder / "part1.onnx").read_bytes()
    assert (tmp_path / "part0.onnx").read_bytes() != (folder / "part0.onnx").read_bytes()
    assert again["held_out"] == answer["held_out"][1:]


def test_a_child_that_fails_says_why(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho no room left >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(ModelLoadingError, match="training of tiny must end with status 0, was 3: no room left"):
        train_split(simulated(), SPLIT, tmp_path / "out", str(fake), TINY, lambda _: None)


def test_no_method_looks_ahead(trained):
    folder, _ = trained
    network = Model.from_onnx(folder / "model.onnx")
    rng = np.random.default_rng(0)
    for one in (simulated()[0], simulated()[2]):
        first, last = spans(one, SPLIT)
        base = forecasts(one, SPLIT, network)
        cut = first + 90
        returns, realised = one.returns.copy(), one.realised.copy()
        returns[cut:] *= rng.uniform(2.0, 5.0, len(returns) - cut)
        realised[cut:] *= 7.0
        other = forecasts(dataclasses.replace(one, returns=returns, realised=realised), SPLIT, network)
        assert set(base) == set(other)
        assert len(base) == (12 if np.isfinite(realised[0]) else 10)
        for name in base:
            upto = len(base[name]) if name.endswith("(past)") else cut - first + 1
            np.testing.assert_array_equal(base[name][:upto], other[name][:upto], err_msg=name)
            if not name.endswith("(past)"):
                assert len(base[name]) == last - first
                assert np.isfinite(base[name]).all()
                assert (base[name] > 0).all()
                assert not np.array_equal(base[name], other[name])


def test_spans_do_not_touch():
    for split in SPLITS:
        times = [np.datetime64(text) for text in (split.train_until, *split.held_out, *split.test)]
        assert all(b - a >= np.timedelta64(22, "D") for a, b in itertools.pairwise(times))
    short = simulated_series(1, 900)
    assert spans(dataclasses.replace(short, dates=np.datetime64("1991-09-01") + np.arange(900)), SPLIT) is None


def test_filtered_var_is_the_definition():
    one = simulated()[0]
    sigmas = np.abs(np.random.default_rng(4).normal(0.01, 0.002, len(one.returns)))
    var = filtered_var(one.returns, sigmas, 900)
    assert len(var) == len(one.returns) - 900
    for t in (0, 1, 500, len(var) - 1):
        at = 900 + t
        z = one.returns[at - VAR_WINDOW : at] / sigmas[at - VAR_WINDOW : at]
        assert var[t] == pytest.approx(value_at_risk(z * sigmas[at], 0.99), rel=1e-12)


def test_the_study_its_tables_and_its_picture(trained, tmp_path):
    folder, training = trained
    network = Model.from_onnx(folder / "model.onnx")
    entry = study(simulated(), SPLIT, network, [network])
    assert set(entry["series"]) == {"S1", "S2", "SPY", "S&P 500"}
    assert set(entry["series"]["SPY"]["qlike"]) == {"EWMA", "HAR", "GARCH", "GJR", "GRU, closes", "GRU"}
    for row in entry["series"].values():
        assert row["confidence_set"]
        assert all(0.0 <= p <= 1.0 for p in row["p"].values())
        gaps = {k: row["qlike"]["GRU"] - row["qlike"][k] for k in row["difference"]}
        assert row["difference"] == pytest.approx(gaps, abs=1e-12)
    # The data are of a GJR model: it must win over the average that knows nothing of leverage.
    assert entry["stocks"]["qlike"]["GJR"] < entry["stocks"]["qlike"]["EWMA"]
    assert 0.0 < entry["var_stocks"]["GJR"]["rate"] < 0.03
    assert entry["seeds"]["stocks"][0] == pytest.approx(entry["stocks"]["qlike"]["GRU"], rel=1e-9)
    dates = {"train_until": SPLIT.train_until, "held_out": SPLIT.held_out, "test": SPLIT.test}
    record = {"data_sha256": {"a.csv": "00"}, "settings": dataclasses.asdict(TINY),
              "splits": {"tiny": {**entry, "training": training, "dates": dates}}}  # fmt: skip
    text = results(record)
    assert "| 2 stocks |" in text
    assert "plain history" in text
    assert "nan" not in text
    assert "## Limits" in card(record, "tiny", "00", 1e-7, "one configuration")
    assert replace_between("a <!-- results -->old<!-- end of results --> b", "new").count("new") == 1
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture(record, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_without_the_data_says_which_file(tmp_path):
    with pytest.raises(DataConversionError, match="sp500_index_1990_2022"):
        load_series(tmp_path)


def test_the_real_series_are_repaired_as_stated():
    root = shared_data("daily", "sp500_index_1990_2022.csv.gz").parent.parent
    series, hashes = load_series(root)
    by_name = {one.name: one for one in series}
    assert len(series) == 25
    assert len(hashes) == 7
    for one in series:
        assert (np.diff(one.dates) > np.timedelta64(0, "D")).all(), one.name
        assert (np.abs(one.returns) < 0.6).all(), one.name
    # One yardstick for variance: where bars are kept, they say what the squared returns say, within reason.
    for name in ("SPY", "QQQ", "Nasdaq", "S&P 500 bars"):
        one = by_name[name]
        known = np.isfinite(one.realised)
        assert 0.6 < one.realised[known].mean() / (one.returns[known] ** 2).mean() < 1.3, name
    spy = by_name["SPY"]
    known = np.isfinite(spy.intraday)
    assert known.sum() > 3000
    assert 0.8 < spy.intraday[known].mean() / (spy.returns[known] ** 2).mean() < 1.2
    assert str(by_name["AAPL"].dates[0]) == "2005-01-14"
