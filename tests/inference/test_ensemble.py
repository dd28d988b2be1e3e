"""Ensembles: the same numbers as members stepped apart, sick members left out, latencies accounted."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.networks import Builder, dense, family, lstm, rows

from tengri_fast import _native
from tengri_fast.errors import ConfigurationError, InferenceFailed
from tengri_fast.inference import ActivationLayer, Ensemble, Model, Network, chain, load_model
from tengri_fast.inference.ensemble_session import EnsembleSession
from tengri_fast.inference.facts import MemberLatency

FIXTURES = Path(__file__).resolve().parent / "fixtures"
NAMES = ("lstm", "tcn", "transformer", "mlp")
ISAS = _native.isa_available()


@pytest.fixture(scope="module")
def members() -> dict[str, Model]:
    return {name: Model.from_network(family(name)) for name in NAMES}


def apart(models: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """[T, members, O] of the members' own sessions."""
    sessions = [model.session() for model in models.values()]
    return np.array([[session.step(row) for session in sessions] for row in x], np.float64)


class Foreign:
    """A model of somebody else, in Python, that fails on request."""

    backend = "foreign"
    declined = None
    sha256 = "00" * 32

    def __init__(self, inputs: int = 20, outputs: int = 3, *, saves: bool = False, shape: int | None = None) -> None:
        self.input_size, self.output_size, self.shape = inputs, outputs, shape or outputs
        if saves:
            self.session = lambda: SavingSession(self)  # type: ignore[method-assign]

    def session(self) -> ForeignSession:
        return ForeignSession(self)

    def run_window(self, x: Any) -> np.ndarray:
        session = self.session()
        return np.array([session.step(row) for row in x])


class ForeignSession:
    def __init__(self, model: Foreign) -> None:
        self.model, self.total = model, 0.0
        self.input = np.zeros(model.input_size, np.float32)
        self.output = np.zeros(model.shape, np.float32)

    def finish(self, x: Any = None) -> np.ndarray:
        if x is not None:
            self.input[:] = x
        if self.input[0] > 100:
            raise InferenceFailed("too hot")
        self.output[:] = np.tanh(self.input[: self.model.shape] + self.total)
        return self.output

    def prepare(self) -> None:
        self.total += 0.01

    def step(self, x: Any = None) -> np.ndarray:
        y = self.finish(x).copy()
        self.prepare()
        return y

    def reset(self) -> None:
        self.total = 0.0

    def copy(self) -> ForeignSession:
        other = type(self)(self.model)
        other.total = self.total
        return other


class SavingSession(ForeignSession):
    def to_bytes(self) -> bytes:
        return np.float64(self.total).tobytes()

    def from_bytes(self, data: bytes) -> None:
        if len(data) != 8:
            raise InferenceFailed("`data` must have 8 bytes")
        self.total = float(np.frombuffer(data)[0])


def test_mean_and_weighted_equal_members_apart(members: dict[str, Model]) -> None:
    x = rows(80, 20)
    alone = apart(members, x)
    got = Ensemble(members).run_window(x)
    assert got.std(axis=0).max() > 1e-3, "the answers must vary"
    assert np.abs(got - alone.mean(axis=1)).max() < 1e-7
    weights = [3.0, 0.5, 2.0, 1.0]
    got = Ensemble(members, method="weighted", weights=weights).run_window(x)
    assert np.abs(got - np.average(alone, axis=1, weights=weights)).max() < 1e-7


def test_stacked_equals_the_stacker_on_the_concatenated_outputs(members: dict[str, Model]) -> None:
    x = rows(60, 20)
    rng = np.random.default_rng(8)
    alone = apart(members, x).reshape(60, -1).astype(np.float32)
    linear = chain([dense(rng, 12, 3)])
    deep = chain([dense(rng, 12, 16, "gelu"), dense(rng, 16, 2, "softmax")])
    for stacker in (linear, deep, Model.from_network(deep)):
        ensemble = Ensemble(members, method="stacked", stacker=stacker)
        model = stacker if isinstance(stacker, Model) else Model.from_network(stacker)
        assert ensemble.output_size == model.output_size
        assert np.array_equal(ensemble.run_window(x), model.run_window(alone))


def test_temperatures_make_probabilities_of_logits() -> None:
    rng = np.random.default_rng(4)
    logits = {name: Model.from_layers([lstm(rng, 6, 9), dense(rng, 9, 3)]) for name in "ab"}
    x = rows(50, 6)
    z = apart(logits, x) / np.array([1.5, 0.25])[None, :, None]
    p = np.exp(z - z.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    got = Ensemble(logits, temperatures=[1.5, 0.25]).run_window(x)
    assert np.abs(got - p.mean(axis=1)).max() < 1e-7
    assert np.abs(got.sum(axis=1) - 1).max() < 1e-6


def test_members_may_be_windowed_and_on_other_backends(members: dict[str, Model]) -> None:
    x = rows(40, 20)
    mixed = {"stream": members["lstm"], "window": members["lstm"], "foreign": Foreign()}
    ensemble = Ensemble(mixed, windows={"window": 7})
    sessions = [members["lstm"].session(), members["lstm"].windowed(7), Foreign().session()]
    want = np.array([np.mean([s.step(row) for s in sessions], axis=0) for row in x])
    assert np.abs(ensemble.run_window(x) - want).max() < 1e-6


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is the member under test")
def test_a_member_on_onnx_runtime() -> None:
    path = FIXTURES / "step_state.script.onnx"
    native, other = load_model(path), load_model(path, backend="onnxruntime")
    x = rows(60, native.input_size)
    ensemble = Ensemble({"native": native, "onnxruntime": other})
    assert np.abs(ensemble.run_window(x) - native.run_window(x)).max() < 2e-6
    session = ensemble.session()
    first = [session.step(row) for row in x[:20]]
    moved = ensemble.session()
    moved.from_bytes(session.to_bytes())
    assert np.array_equal([*first, *[moved.step(row) for row in x[20:]]], ensemble.run_window(x))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 13, 100])
@pytest.mark.parametrize("method", ["mean", "stacked"])
def test_chunks_with_save_load_and_copy(members: dict[str, Model], method: str, chunk: int) -> None:
    x = rows(70, 20)
    stacker = chain([dense(np.random.default_rng(2), 15, 3)]) if method == "stacked" else None
    ensemble = Ensemble({**members, "w": members["lstm"]}, method=method, stacker=stacker, windows={"w": 6})
    whole = ensemble.run_window(x)
    session, out = ensemble.session(), []
    for start in range(0, len(x), chunk):
        other = copy.copy(session) if start % 2 else ensemble.session()
        other.from_bytes(session.to_bytes())
        assert np.array_equal(other.output, session.output)
        assert other.to_bytes() == session.to_bytes()
        for i, row in enumerate(x[start : start + chunk]):
            other.input[:] = row
            out.append(other.finish().copy())
            for _ in range(i % 3):  # forgotten and repeated prepares change nothing
                other.prepare()
        session = copy.deepcopy(other)
    assert np.array_equal(out, whole)


def test_a_sick_member_is_left_out_and_counted(members: dict[str, Model]) -> None:
    b = Builder(np.random.default_rng(1), 20)
    b.add(dense(b.rng, 20, 3))
    fragile = Model.from_layers([ActivationLayer("none", 20), dense(b.rng, 20, 3)])
    huge = Model.from_layers(
        [type(fragile.layers[1])(np.full((3, 20), 1e30, np.float32), np.zeros(3), name="overflows")]
    )
    ensemble = Ensemble({"lstm": members["lstm"], "huge": huge}, method="weighted", weights=[1, 5])
    session = ensemble.session()
    x = rows(30, 20)
    x[10] = 1e30  # 20 * 1e60 is beyond float32; the LSTM saturates and stays finite
    y = np.array([session.step(row) for row in x])
    alone = apart({"lstm": members["lstm"], "huge": huge}, x)
    assert np.isfinite(y).all()
    assert np.array_equal(y[10], alone[10, 0].astype(np.float32))
    assert np.allclose(y[11], (alone[11, 0] + 5 * alone[11, 1]) / 6, rtol=1e-6), "it is back at once: no state"
    assert session.left_out == {"lstm": 0, "huge": 1}
    assert session.healthy == {"lstm": True, "huge": True}


def test_nan_in_a_state_keeps_a_member_out_until_its_reset(members: dict[str, Model]) -> None:
    pair = {"lstm": members["lstm"], "mlp": members["mlp"]}
    session = Ensemble(pair).session()
    x = rows(30, 20)
    bad = x[5].copy()
    bad[3] = np.nan
    for row in x[:5]:
        session.step(row)
    assert np.isnan(session.step(bad)).all(), "nobody is healthy"
    assert session.healthy == {"lstm": False, "mlp": False}
    y = session.step(x[6])
    assert np.array_equal(y, members["mlp"].run_window(x[6:7])[0])
    session.reset_member("lstm")
    y = session.step(x[7])
    want = [members[name].run_window(x[7:8])[0].astype(np.float64) for name in pair]
    assert np.abs(y - np.mean(want, axis=0)).max() < 1e-7
    assert session.left_out == {"lstm": 2, "mlp": 1}
    stacked = Ensemble(pair, method="stacked", stacker=chain([dense(np.random.default_rng(0), 6, 2)])).session()
    clean = stacked.to_bytes()
    stacked.step(bad)
    assert np.isnan(stacked.step(x[6])).all(), "a stacker does not guess"
    stacked.reset()
    assert stacked.to_bytes() == clean
    assert np.isfinite(stacked.step(x[6])).all()


def test_a_failing_foreign_member_is_left_out(members: dict[str, Model]) -> None:
    session = Ensemble({"mlp": members["mlp"], "foreign": Foreign()}).session()
    x = rows(3, 20)
    x[1, 0] = 1000
    y = np.array([session.step(row) for row in x])
    assert np.array_equal(y[1], members["mlp"].run_window(x[1:2])[0])
    assert session.left_out == {"mlp": 0, "foreign": 1}
    assert session.last_errors == {"foreign": "too hot"}
    wrong = Ensemble({"mlp": members["mlp"], "foreign": Foreign(shape=2)}).session()
    with pytest.raises(InferenceFailed, match=r"member `foreign` must answer with shape \[3\], was \[2\]"):
        wrong.step(x[0])
    with pytest.raises(InferenceFailed, match="member `foreign`: its backend cannot save sessions"):
        session.to_bytes()
    saving = Ensemble({"mlp": members["mlp"], "foreign": Foreign(saves=True)})
    first, second = saving.session(), saving.session()
    first.step(x[0])
    second.from_bytes(first.to_bytes())
    assert np.array_equal(first.step(x[2]), second.step(x[2]))


class LosingSession(ForeignSession):
    def prepare(self) -> None:
        if self.input[0] > 50:
            raise InferenceFailed("lost its place")
        super().prepare()


def test_a_member_that_fails_between_two_rows_stays_out(members: dict[str, Model]) -> None:
    """Its state did not move with the stream, so later answers of it would be of another history."""
    foreign = Foreign()
    foreign.session = lambda: LosingSession(foreign)  # type: ignore[method-assign]
    session = Ensemble({"foreign": foreign, "lstm": members["lstm"]}).session()
    x = rows(6, 20)
    x[1, 0] = 60
    y = np.array([session.step(row) for row in x])
    alone = members["lstm"].run_window(x)
    assert np.array_equal(y[2:], alone[2:])
    assert not np.array_equal(y[:2], alone[:2])
    assert session.healthy == {"foreign": False, "lstm": True}
    assert session.left_out == {"foreign": 4, "lstm": 0}
    assert session.last_errors == {"foreign": "lost its place"}
    twin = session.copy()
    assert np.array_equal(twin.step(x[2]), session.step(x[2]))
    assert twin.healthy["foreign"] is False
    session.reset_member("foreign")
    session.step(x[2])
    assert session.healthy == {"foreign": True, "lstm": True}


def test_latencies_are_accounted(members: dict[str, Model]) -> None:
    session = Ensemble({**members, "foreign": Foreign()}).session()
    for row in rows(50, 20):
        session.step(row)
    found = session.latencies()
    assert list(found) == [*NAMES, "foreign"]
    for entry in found.values():
        assert isinstance(entry, MemberLatency)
        assert entry.steps == 50
        assert 0 < entry.mean <= entry.max
        assert 0 < entry.last <= entry.max
        assert 0 <= entry.prepare_mean <= entry.prepare_max
    session.clear_latencies()
    assert set(session.latencies().values()) == {MemberLatency(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)}


def test_reset_is_exact_and_sessions_are_independent(members: dict[str, Model]) -> None:
    ensemble = Ensemble(members)
    session, other = ensemble.session(), ensemble.session()
    fresh = session.to_bytes()
    x = rows(20, 20)
    want = [session.step(row) for row in x]
    assert other.to_bytes() == fresh
    session.reset()
    assert session.to_bytes() == fresh
    assert np.array_equal([session.step(row) for row in x], want)


def test_saved_state_is_bound_and_checked(members: dict[str, Model]) -> None:
    ensemble = Ensemble(members)
    session = ensemble.session()
    session.step(rows(1, 20)[0])
    data, target = session.to_bytes(), ensemble.session()
    kept = target.to_bytes()
    others = [
        Ensemble(members, method="weighted", weights=[1, 1, 1, 1]),
        Ensemble(members, temperatures=[1, 0, 0, 0]),
        Ensemble(members, windows={"lstm": 3}),
        Ensemble(dict(reversed(members.items()))),
    ]
    assert len({ensemble.sha256, *(other.sha256 for other in others)}) == 5
    damaged = [data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(0, len(data), 97)]
    for bad in (b"", data[:-1], data + b"\0", *damaged, *(other.session().to_bytes() for other in others)):
        with pytest.raises(InferenceFailed, match="`data` must be"):
            target.from_bytes(bad)
    assert target.to_bytes() == kept


def test_wrong_ensembles_are_named(members: dict[str, Model]) -> None:
    narrow = Model.from_layers([dense(np.random.default_rng(0), 19, 3)])
    short = Model.from_layers([dense(np.random.default_rng(0), 20, 2)])
    recurrent = chain([lstm(np.random.default_rng(0), 12, 3)])
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ({}, {}, "at least one model"),
        ([members["lstm"], narrow], {}, r"member `member1`: `input_size` must be that of the others \(20\), was 19"),
        ([members["lstm"], short], {}, r"`output_size` must be that of the others \(3\), was 2"),
        ([members["lstm"], 5], {}, "must be a model, was int"),
        (members, {"method": "median"}, "`method` must be one of mean, weighted, stacked"),
        (members, {"method": "weighted"}, "`weights` must be given"),
        (members, {"weights": [1] * 4}, '`weights` must be given for "weighted" only'),
        (members, {"method": "weighted", "weights": [1, 2]}, r"one entry per member \(4\), had 2"),
        (members, {"method": "weighted", "weights": [1, 2, 0, 1]}, "finite and > 0"),
        (members, {"method": "weighted", "weights": [1, 2, 1e308, 1e308]}, "must lie within 1e-100 and 1e100"),
        (members, {"method": "weighted", "weights": ["a", 1, 1, 1]}, "`weights` must hold numbers"),
        (members, {"temperatures": [1, 1, 1, float("nan")]}, "finite and >= 0"),
        (members, {"temperatures": []}, r"one entry per member \(4\), had 0"),
        (members, {"temperatures": np.ones(3)}, r"one entry per member \(4\), had 3"),
        (members, {"method": "stacked"}, "`stacker` must be given"),
        (members, {"stacker": recurrent}, "`stacker` must be given"),
        (members, {"method": "stacked", "stacker": recurrent}, "layers without state.*held lstm"),
        (members, {"method": "stacked", "stacker": 3}, "a Network or a native Model, was int"),
        (
            members,
            {"method": "stacked", "stacker": chain([dense(np.random.default_rng(0), 11, 3)])},
            "read the members' 12 outputs, reads 11",
        ),
        (members, {"windows": {"gone": 3}}, "`windows` must name members"),
        ({"f": Foreign()}, {"windows": {"f": 3}}, "runs on foreign"),
    ]
    for given_members, options, text in cases:
        with pytest.raises(ConfigurationError, match=text):
            Ensemble(given_members, **options)
    session = Ensemble(members).session()
    for bad in (np.zeros(19), np.zeros((1, 20))):
        with pytest.raises(InferenceFailed, match=r"`x` must have shape \[20\]"):
            session.step(bad)
    with pytest.raises(InferenceFailed, match=r"\[T, 20\]"):
        Ensemble(members).run_window(np.zeros(20))
    with pytest.raises(ConfigurationError, match="`name` must be a member"):
        session.reset_member("gone")
    for value in (Ensemble(members), session):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value)
    with pytest.raises(TypeError, match="made by"):
        EnsembleSession()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=6),
    st.lists(st.floats(0.01, 100), min_size=6, max_size=6),
    st.integers(1, 12),
    st.sampled_from(ISAS),
)
def test_random_ensembles(names: list[str], weights: list[float], steps: int, isa: str) -> None:
    models = [Model.from_network(family(name, seed=i), isa=isa) for i, name in enumerate(names)]
    weights = weights[: len(models)]
    x = rows(steps, 20)
    got = Ensemble(models, method="weighted", weights=weights).run_window(x)
    want = np.average([model.run_window(x).astype(np.float64) for model in models], axis=0, weights=weights)
    assert np.abs(got - want).max() < 2e-7
    assert isinstance(models[0].network, Network)
