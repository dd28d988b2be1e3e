"""What a record accepts, what it refuses, and that a saved one comes back whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tengri_fast.errors import DataConversionError
from tengri_fast.report import TABLES, Denial, Latency, RunRecord
from tengri_fast.report.page import page_data

T = 1_700_000_000_000_000_000
TEXT = st.text(max_size=20)
FINITE = st.floats(-1e12, 1e12)
BASE: dict[str, Any] = {
    "name": "n",
    "title": "t",
    "instrument_id": "A.B",
    "currency": "USD",
    "starting_equity": 10.0,
    "equity": {"ts": [T], "value": [11.0]},
}


def same(first: RunRecord, second: RunRecord) -> None:
    for item in fields(RunRecord):
        a, b = getattr(first, item.name), getattr(second, item.name)
        if item.name in TABLES:
            for column in TABLES[item.name]:
                assert a[column].tolist() == b[column].tolist(), (item.name, column)
                assert a[column].dtype.kind == b[column].dtype.kind
        elif isinstance(a, Latency):
            assert a.edges.tolist() == b.edges.tolist()
            assert a.counts.tolist() == b.counts.tolist()
            assert a.percentiles() == b.percentiles()
        elif item.name == "skill" and a is not None:
            assert json.dumps(a.to_dict()) == json.dumps(b.to_dict())
        else:
            assert a == b, item.name


def test_a_saved_record_gives_the_same_page(record: RunRecord, tmp_path: Path) -> None:
    path = record.to_json(tmp_path / "deep" / "run.json")
    back = RunRecord.from_json(path)
    same(record, back)
    assert page_data(back) == page_data(record)
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".json", ".npz"]


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    count = draw(st.integers(0, 5))
    many = lambda element: st.lists(element, min_size=count, max_size=count)  # noqa: E731
    times = sorted(draw(many(st.integers(0, 2**63))))
    up = draw(many(st.floats(0, 1)))
    gross, fees = draw(many(FINITE)), draw(many(st.floats(-10, 10)))
    positive = many(st.floats(1e-9, 1e9))
    word = TEXT.filter(lambda t: t.strip() != "")
    denials = draw(
        st.lists(
            st.builds(
                Denial,
                ts=st.integers(0, 2**64 - 1),
                order_id=TEXT,
                rule=word,
                value=st.none() | st.floats(),
                limit=st.none() | st.floats(),
                reason=TEXT,
                source=st.sampled_from(["strategy", "drill"]),
            ),
            max_size=4,
        )
    )
    return RunRecord(
        name=draw(word),
        title=draw(word),
        instrument_id=draw(word),
        currency=draw(word),
        starting_equity=draw(FINITE),
        equity={"ts": [0, *times], "value": [draw(FINITE), *draw(many(FINITE))]},
        mid={"ts": times, "price": draw(many(FINITE))},
        fills={
            "ts": times, "side": draw(many(st.sampled_from([-1, 1]))), "quantity": draw(positive),
            "price": draw(many(FINITE)), "fee": fees, "tag": draw(many(TEXT)),
        },
        trades={
            "entry_ts": times, "exit_ts": times, "entry_price": draw(many(FINITE)), "exit_price": draw(many(FINITE)),
            "side": draw(many(st.sampled_from([-1, 1]))), "quantity": draw(positive), "gross": gross, "fees": fees,
            "reason": draw(many(TEXT)),
        },
        signals={
            "ts": times, "mid": draw(many(FINITE)), "p_up": up, "p_down": [1 - p for p in up], "p_flat": [0.0] * count,
            "value_bps": draw(many(FINITE)), "confidence": up,
        },
        latency=Latency([0.0, 1.0, 5.0], draw(st.lists(st.integers(0, 99), min_size=2, max_size=2))),
        submitted=draw(st.integers(0, 99)),
        denials=denials,
        notes=draw(st.lists(TEXT, max_size=3)),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        config_text=draw(TEXT),
        model_card=draw(
            st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | st.floats() | TEXT, max_size=3)
        ),
        seeds=draw(st.dictionaries(TEXT, st.integers(), max_size=2)),
        trials=draw(st.none() | st.integers(0, 9)),
    )  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(records())
def test_any_record_survives_its_files(record: RunRecord) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = record.to_json(Path(folder) / "run.json")
        text = path.read_text()
        assert not {"NaN", "Infinity", "-Infinity"} & set(text.replace(",", " ").replace("]", " ").split())
        same(record, RunRecord.from_json(path))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(records())
def test_the_numbers_of_a_record_agree_with_each_other(record: RunRecord) -> None:
    head = page_data(record)["headline"]
    assert record.pnl == record.equity["value"][-1] - record.starting_equity
    assert head["ending_equity"] - head["starting_equity"] == head["pnl"]
    assert record.fees == pytest.approx(sum(record.fills["fee"].tolist()), abs=1e-9)
    net, gross, fees = (record.trades[name] for name in ("net", "gross", "fees"))
    assert net.tolist() == (gross - fees).tolist()
    assert head["trades_net"] == pytest.approx(head["trades_gross"] - head["trades_fees"], abs=1e-3)
    assert head["trades_net"] + head["not_in_trades"] == pytest.approx(head["pnl"], abs=1e-3)
    peak, worst = record.starting_equity, 0.0
    for value in record.equity["value"].tolist():
        peak = max(peak, value)
        worst = min(worst, value - peak)
    assert head["max_drawdown"] == worst
    assert sum(record.denied.values()) == len(record.denials)


def test_writing_again_leaves_no_arrays_of_the_old_run(make_record: Callable[..., RunRecord], tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    make_record(starting_equity=5.0, mid={}).to_json(path)
    make_record().to_json(path)
    make_record().to_json(path)
    assert len(list(tmp_path.iterdir())) == 2
    assert RunRecord.from_json(path).starting_equity == 100_000.0


def test_the_same_record_gives_the_same_bytes(make_record: Callable[..., RunRecord], tmp_path: Path) -> None:
    digests = []
    for folder in ("a", "b"):
        make_record().to_json(tmp_path / folder / "run.json")
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / folder).iterdir()})
    assert digests[0] == digests[1]


def test_damaged_files_are_refused(bare: RunRecord, tmp_path: Path) -> None:
    path = bare.to_json(tmp_path / "run.json")
    body = json.loads(path.read_text())
    arrays = tmp_path / body["arrays"]

    def refused(message: str) -> None:
        with pytest.raises(DataConversionError, match=message):
            RunRecord.from_json(path)

    for change, message in (
        ({"format": "something else"}, "is not a tengri_fast run record"),
        ({"version": 99}, "`version` of run.json must be 1, was 99"),
        ({"arrays": "../" + arrays.name}, "must name a file beside"),
        ({"arrays": 3}, "must name a file beside"),
        ({"arrays": "gone.npz"}, "must stand beside"),
        ({"arrays_sha256": "0" * 64}, "SHA-256 differs"),
        ({"denials": [{"rule": "X"}]}, "`denials` does not fit"),
        ({"denied": 7}, "`denied` must be a mapping"),
        ({"latency": {"p50": 1.0}}, "`latency` does not fit"),
    ):
        path.write_text(json.dumps(body | change))
        refused(message)
    path.write_text(json.dumps({k: v for k, v in body.items() if k != "title"}))
    refused(r"not a whole record: .*title")
    path.write_text(json.dumps(body)[:100])
    refused("is not JSON")
    path.write_bytes(b"\xff\xfe")
    refused("is not JSON")
    path.unlink()
    refused("cannot be read")
    with pytest.raises(DataConversionError, match=r"must end in \.json"):
        bare.to_json(tmp_path / "run.txt")

    bare.to_json(path)
    arrays.write_bytes(arrays.read_bytes()[:-9])
    refused("SHA-256 differs")


def test_pickled_arrays_are_never_loaded(bare: RunRecord, tmp_path: Path) -> None:
    path = bare.to_json(tmp_path / "run.json")
    evil = tmp_path / "evil.npz"
    np.savez(evil, **{"fills.tag": np.array([{"a": 1}], dtype=object)})
    digest = hashlib.sha256(evil.read_bytes()).hexdigest()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"arrays": evil.name, "arrays_sha256": digest}))
    with pytest.raises(DataConversionError, match=r"evil.npz` cannot be read: .*allow_pickle=False"):
        RunRecord.from_json(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": " "}, "`title` must be a text that is not empty"),
        ({"currency": 3}, "`currency` must be a text"),
        ({"starting_equity": math.nan}, "`starting_equity` must be finite, was nan"),
        ({"starting_equity": "much"}, "`starting_equity` must be a number, was 'much'"),
        ({"equity": {"ts": [], "value": []}}, "`equity` must have at least one row"),
        ({"equity": {"ts": [T], "value": [math.inf]}}, "`equity.value` must be finite, row 0 was inf"),
        ({"equity": {"ts": [2, 1], "value": [1.0, 1.0]}}, "`equity.ts` must not decrease, row 1 was before row 0"),
        ({"equity": {"ts": [-1], "value": [1.0]}}, "`equity.ts` must hold whole numbers from 0"),
        ({"equity": {"ts": [1.5], "value": [1.0]}}, "`equity.ts` must hold whole numbers"),
        ({"equity": {"ts": [T], "value": [1.0, 2.0]}}, "columns of `equity` must have equal lengths"),
        ({"equity": {"ts": [T], "price": [1.0]}}, "`equity` has no column `price`; it has ts, value"),
        ({"equity": {"ts": [T]}}, "`equity` must have the column `value`"),
        ({"equity": {"ts": [T], "value": ["a"]}}, "`equity.value` must hold numbers"),
        ({"equity": {"ts": [T], "value": [[1.0]]}}, "`equity.value` must have one dimension, had 2"),
        ({"equity": [1, 2]}, "`equity` must be a mapping, was list"),
        ({"notes": "one text"}, "`notes` must be a list, was str"),
        ({"submitted": -1}, "`submitted` must be a whole number >= 0, was -1"),
        ({"filled": 1.5}, "`filled` must be a whole number"),
        ({"trials": "x"}, "`trials` must be a whole number, was 'x'"),
        ({"run_seconds": math.inf}, "`run_seconds` must be finite"),
        ({"span": (5, 4)}, "`span` must not end before it begins, was 5 to 4"),
        ({"span": 5}, "`span` must be two times"),
        ({"denials": [{"ts": 1, "order_id": "o", "rule": "R", "source": "me"}]}, "`denials.source` must be one of"),
        ({"denials": [{"ts": 1, "order_id": "o", "rule": ""}]}, "`denials.rule` must not be empty"),
        ({"denials": ["text"]}, "`denials` must be a Denial or a mapping, was str"),
        ({"denied": {"R": 0}, "denials": [{"ts": 1, "order_id": "o", "rule": "R"}]}, "`denied.R` must be >= 1 listed"),
        ({"latency": {"edges": [1, 2], "counts": [1, 2]}}, "`latency.edges` must have one entry more"),
        ({"latency": {"edges": [2, 1], "counts": [1]}}, "`latency.edges` must increase"),
        ({"latency": {"edges": [1, 2], "counts": [-1]}}, "`latency.counts` must hold whole numbers from 0"),
        ({"skill": {"moves": 1}}, "`skill` is not an evaluation"),
        ({"versions": ["numpy"]}, "`versions` must be a mapping"),
        ({"isa": None}, "`isa` must be a text"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataConversionError) as caught:
        RunRecord(**(BASE | change))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("net", [5.0], "`trades.net` must be gross - fees = 1.5, row 0 was 5.0"),
        ("exit_ts", [1], "`trades.exit_ts` must be >= `entry_ts`, row 0 was before it"),
        ("side", [0], "`trades.side` must be +1 or -1, row 0 was 0"),
        ("quantity", [0.0], "`trades.quantity` must be > 0, row 0 was 0.0"),
        ("reason", [7], "`trades.reason` must hold texts"),
    ],
)
def test_wrong_trades_are_named(column: str, value: list[Any], message: str) -> None:
    trade = {
        "entry_ts": [5], "entry_price": [1.0], "exit_ts": [6], "exit_price": [2.0], "side": [1], "quantity": [1.0],
        "gross": [2.0], "fees": [0.5],
    }  # fmt: skip
    good = RunRecord(**BASE, trades=trade)
    assert good.trades["net"].tolist() == [1.5]
    assert good.trades["reason"].tolist() == [""]
    with pytest.raises(DataConversionError) as caught:
        RunRecord(**BASE, trades=trade | {column: value})
    assert message in str(caught.value)


@pytest.mark.parametrize("chances", [(0.5, 0.2, 0.5), (-0.1, 0.6, 0.5), (0.1, 0.1, 0.1)])
def test_probabilities_must_be_probabilities(chances: tuple[float, float, float]) -> None:
    row = {"ts": [T], "mid": [1.0], "value_bps": [0.0], "confidence": [0.5]}
    names = ("p_down", "p_flat", "p_up")
    with pytest.raises(DataConversionError, match="`signals` probabilities must be >= 0 and sum to 1, row 0"):
        RunRecord(**BASE, signals=row | {name: [p] for name, p in zip(names, chances, strict=True)})


def test_defaults_are_found() -> None:
    found = RunRecord(**BASE, config_text="a = 1\n", denied={"R": 4}, denials=[Denial(T, "o", "R", math.nan, 2)])
    assert found.config_sha256 == hashlib.sha256(b"a = 1\n").hexdigest()
    assert found.span == (T, T)
    assert found.denied == {"R": 4}
    assert found.denied_by_source() == {"strategy": {"R": 1}, "drill": {}}
    assert found.denials[0].value is None
    assert found.denials[0].limit == 2.0
    assert found.pnl == 1.0


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300))
def test_percentiles_from_buckets_are_never_too_small(times: list[int]) -> None:
    edges = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512], float)
    counts, _ = np.histogram(times, edges)
    found = Latency(edges, counts)
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)):
        true = sorted(times)[max(1, math.ceil(share * len(times))) - 1]
        upper = getattr(found, name)
        assert true <= upper
        assert upper in edges
        assert true >= edges[np.flatnonzero(edges == upper)[0] - 1]


def test_an_empty_histogram_has_no_percentiles() -> None:
    assert all(math.isnan(v) for v in Latency([1.0, 2.0], [0]).percentiles().values())
    given_ones = Latency([1.0, 2.0], [3], p50=1.25, max=1.5)
    assert given_ones.percentiles() == {"p50": 1.25, "p99": 2.0, "p999": 2.0, "max": 1.5}
