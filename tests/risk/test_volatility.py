"""Volatility models one return at a time, what is done with their forecasts, and the state that is drawn from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volatility_paths import gjr_path

from tengri_fast.errors import ConfigurationError, DataConversionError, InferenceFailed
from tengri_fast.risk.garch import Garch, filter_variance, fit_garch
from tengri_fast.risk.neural_volatility import FEATURES, WARMUP, NeuralVolatility, VolatilityFeatures
from tengri_fast.risk.volatility import (
    SMALLEST_SIGMA,
    EwmaVolatility,
    GarchVolatility,
    HarVolatility,
    NeuralRiskModel,
    VolatilityState,
    filtered_scenarios,
    fit_har,
    range_variance,
    scale_covariance,
    volatility_state,
)

RETURNS, _ = gjr_path(21, 600)
PARAMS = Garch(omega=2e-6, alpha=0.03, beta=0.9, gamma=0.08, mean=3e-4, start=1.1e-4)


class EchoSession:
    """A session with a state and no network behind it: the answer leans to the last row and to how many there were."""

    def __init__(self) -> None:
        self.input = np.zeros(len(FEATURES), np.float32)
        self.rows = 0
        self.broken_at = -1

    def finish(self):
        answer = math.nan if self.rows == self.broken_at else 0.1 * float(self.input[4]) + 0.01 * (self.rows % 7)
        return np.array([answer], np.float32)

    def prepare(self):
        self.rows += 1

    def reset(self):
        self.rows = 0

    def to_bytes(self):
        return self.rows.to_bytes(8, "little")

    def from_bytes(self, data):
        self.rows = int.from_bytes(data, "little")


MODELS = {
    "ewma": EwmaVolatility,
    "har": lambda: fit_har(RETURNS**2),
    "garch": lambda: GarchVolatility(PARAMS),
    "neural": lambda: NeuralVolatility(EchoSession(), "echo"),
}


def feed(model, returns, realised=None):
    """Forecasts after each return."""
    out = []
    for t, r in enumerate(returns):
        model.update(float(r), math.nan if realised is None else float(realised[t]))
        out.append(model.forecast())
    return np.array(out)


@pytest.fixture(params=sorted(MODELS))
def model(request):
    return MODELS[request.param]()


def test_the_protocol(model):
    assert isinstance(model, NeuralRiskModel)
    assert model.name
    assert model.horizon == 1
    said = feed(model, RETURNS)
    known = np.isfinite(said)
    assert model.ready
    assert known[WARMUP:].all()
    assert (said[known] > 0).all()
    # Once there is a forecast there always is one.
    assert known[int(np.argmax(known)) :].all()
    assert said[known].std() > 0


def test_restored_and_reset_models_give_the_same_bits(model):
    whole = feed(model, RETURNS)
    model.reset()
    np.testing.assert_array_equal(feed(model, RETURNS), whole)
    model.reset()
    for cut in (0, 1, 2, 3, 5, 7, 13, 100):
        model.reset()
        first = feed(model, RETURNS[:cut])
        data = model.to_bytes()
        feed(model, 3.0 * RETURNS[:50])
        model.from_bytes(data)
        np.testing.assert_array_equal(np.concatenate([first, feed(model, RETURNS[cut:])]), whole)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_return_that_is_no_number_changes_nothing(model, wrong):
    feed(model, RETURNS[:200])
    before = model.to_bytes()
    with pytest.raises(DataConversionError, match="`return_` must be finite"):
        model.update(wrong)
    with pytest.raises(DataConversionError, match="`realised`"):
        model.update(0.01, -1e-9)
    with pytest.raises(DataConversionError, match="`realised`"):
        model.update(0.01, math.inf)
    assert model.to_bytes() == before


def test_a_state_of_something_else_is_refused(model):
    feed(model, RETURNS[:100])
    data = model.to_bytes()
    others = [b"", data[:-1], data + b"x", b"\0" * len(data), bytes(reversed(data)), EwmaVolatility(0.5).to_bytes()]
    for other in others:
        with pytest.raises(DataConversionError, match="`data`"):
            model.from_bytes(other)
    assert model.to_bytes() == data


def test_a_state_that_is_not_finite_is_refused():
    model = GarchVolatility(PARAMS)
    data = model.to_bytes()
    with pytest.raises(DataConversionError, match="finite"):
        model.from_bytes(data[:-8] + np.array([np.nan]).tobytes())


def test_zero_variance_divides_nothing_by_zero(model):
    said = feed(model, np.zeros(300))
    assert (said[WARMUP:] >= SMALLEST_SIGMA).all()
    assert np.isfinite(feed(model, [0.5, -0.9, 1e-12, 0.0])).all()


def test_short_history_gives_no_forecast():
    for key, least in (("ewma", 22), ("har", 22), ("neural", WARMUP)):
        said = feed(MODELS[key](), RETURNS[: least + 1])
        assert np.isnan(said[: least - 1]).all(), key
        assert np.isfinite(said[least - 1 :]).all(), key


def test_ewma_is_the_formula():
    h, expected = 0.0, []
    for t, r in enumerate(RETURNS, 1):
        h += max(0.06, 1.0 / t) * (r * r - h)
        expected.append(math.sqrt(h))
    np.testing.assert_allclose(feed(EwmaVolatility(), RETURNS)[21:], expected[21:], rtol=1e-12)
    # The beginning is the plain mean square, and it is forgotten.
    assert feed(EwmaVolatility(warmup=5), RETURNS[:10])[-1] == pytest.approx(np.sqrt(np.mean(RETURNS[:10] ** 2)))
    weights = 0.06 * 0.94 ** np.arange(599, -1, -1.0)
    assert expected[-1] ** 2 == pytest.approx(weights @ RETURNS**2, rel=1e-4)
    assert feed(EwmaVolatility(horizon=4), RETURNS)[-1] == pytest.approx(2.0 * expected[-1], rel=1e-14)


def test_garch_streams_what_the_filter_says():
    variances = filter_variance(RETURNS, PARAMS)
    np.testing.assert_array_equal(feed(GarchVolatility(PARAMS), RETURNS), np.sqrt(variances[1:]))
    assert GarchVolatility(PARAMS).forecast() == math.sqrt(variances[0])
    far = GarchVolatility(PARAMS, horizon=5)
    assert feed(far, RETURNS)[-1] ** 2 == pytest.approx(PARAMS.forecast(variances[-1], 5).sum(), rel=1e-14)
    fitted = GarchVolatility(fit_garch(RETURNS))
    assert fitted.name == "garch"
    assert GarchVolatility(PARAMS).name == "gjr"


@pytest.mark.parametrize("horizon", [1, 5])
def test_har_is_numpys_least_squares(horizon):
    v = RETURNS**2
    rows = range(21, len(v) - horizon)
    design = np.array([[1.0, v[t], v[t - 4 : t + 1].mean(), v[t - 21 : t + 1].mean()] for t in rows])
    target = np.array([v[t + 1 : t + 1 + horizon].mean() for t in rows])
    expected = np.linalg.lstsq(design * [1.0, 1e4, 1e4, 1e4], target * 1e4, rcond=None)[0] * [1e-4, 1, 1, 1]
    model = fit_har(v, horizon)
    np.testing.assert_allclose(model.coefficients, expected, rtol=1e-7)
    said = feed(model, RETURNS)
    fitted = np.clip(design @ expected, max(model.low, SMALLEST_SIGMA**2), model.high)
    np.testing.assert_allclose(said[21 : len(v) - horizon], np.sqrt(horizon * fitted), rtol=1e-7)


def test_har_takes_the_measured_variance_where_there_is_one():
    realised = np.abs(np.random.default_rng(3).normal(1e-4, 3e-5, 600))
    one, other = fit_har(realised), fit_har(realised)
    np.testing.assert_array_equal(feed(one, RETURNS, realised), feed(other, np.sqrt(realised) * 0 + 0.5, realised))
    wild = HarVolatility((0.0, 9.0, 0.0, 0.0), 1e-6, 1e-3)
    assert feed(wild, np.full(30, 0.9))[-1] == pytest.approx(math.sqrt(1e-3))
    assert feed(HarVolatility((-1.0, 0.0, 0.0, 0.0), 1e-6, 1e-3), RETURNS)[-1] == pytest.approx(1e-3)


def test_hostile_settings():
    for maker, match in (
        (lambda: EwmaVolatility(1.0), "`decay`"),
        (lambda: EwmaVolatility(horizon=0), "`horizon`"),
        (lambda: EwmaVolatility(warmup=0), "`warmup`"),
        (lambda: HarVolatility((1.0, 2.0), 0.0, 1.0), "`coefficients`"),
        (lambda: HarVolatility((0.0, 1.0, 0.0, 0.0), 2.0, 1.0), "`low`"),
        (lambda: GarchVolatility(Garch(1e-6, 0.2, 0.8)), "`params.start`"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            maker()
    for values, match in ((np.ones(200), "vary"), (RETURNS[:50] ** 2, "at least 61"), (RETURNS, ">= 0"),
                          (np.r_[RETURNS**2, np.nan], "nan at 600")):  # fmt: skip
        with pytest.raises(DataConversionError, match=match):
            fit_har(values)


# The neural model around any session


def test_features_are_ratios_and_streams_equal_windows():
    measured = np.abs(np.random.default_rng(5).normal(1e-4, 3e-5, 600))
    measured[:300] = np.nan
    rows, anchors = VolatilityFeatures().rows(RETURNS, measured)
    scaled, others = VolatilityFeatures().rows(1000.0 * RETURNS, 1e6 * measured)
    np.testing.assert_allclose(rows, scaled, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(others, 1e6 * anchors, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(anchors)[21:], feed(EwmaVolatility(), RETURNS)[21:], rtol=1e-12)
    assert np.isfinite(rows).all()
    assert (rows[:300, 5:] == 0).all()
    assert (rows[300:, 8] == 1).all()
    flipped, _ = VolatilityFeatures().rows(-RETURNS, measured)
    np.testing.assert_array_equal(flipped[:, 4], -rows[:, 4])
    np.testing.assert_array_equal(np.delete(flipped, 4, axis=1), np.delete(rows, 4, axis=1))
    model = NeuralVolatility(EchoSession(), "echo")
    said = feed(model, RETURNS, measured)
    answers = 0.1 * rows[:, 4].astype(float) + 0.01 * (np.arange(600) % 7)
    np.testing.assert_allclose(said[WARMUP:], np.sqrt(anchors * np.exp(answers))[WARMUP:], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1.0, 1e6, allow_nan=False), min_size=1, max_size=30))
def test_features_are_bounded_whatever_comes(returns):
    rows, anchors = VolatilityFeatures().rows(returns, np.abs(returns))
    assert np.isfinite(rows).all()
    assert (anchors > 0).all()
    # A return is at least 6 % of the anchor that has just taken it in, so its ratio is bounded without any clipping.
    assert np.abs(rows[:, 4]).max() <= 1.0 / math.sqrt(0.06) + 1e-6
    assert np.abs(rows[:, [0, 1, 2, 3, 5, 6, 7]]).max() <= 4.61


def test_an_answer_that_is_not_finite_is_no_forecast():
    session = EchoSession()
    session.broken_at = 100
    model = NeuralVolatility(session, "echo")
    feed(model, RETURNS[:100])
    assert model.ready
    with pytest.raises(InferenceFailed, match="answer of echo must be finite"):
        model.update(0.01)
    assert not model.ready
    assert math.isnan(model.forecast())
    model.update(0.01)  # a later answer does not hide the earlier one
    assert not model.ready
    with pytest.raises(InferenceFailed, match="reset"):
        model.to_bytes()
    model.reset()
    assert np.isfinite(feed(model, RETURNS[:90])[WARMUP:]).all()


def test_an_answer_is_clipped():
    session = EchoSession()
    session.finish = lambda: np.array([50.0], np.float32)
    model = NeuralVolatility(session, "echo")
    anchor = feed(EwmaVolatility(), RETURNS)[-1]
    assert feed(model, RETURNS)[-1] == pytest.approx(anchor * math.exp(2.0), rel=1e-12)
    wrong = EchoSession()
    wrong.input = np.zeros(4, np.float32)
    with pytest.raises(ConfigurationError, match="`session` must take 9 inputs"):
        NeuralVolatility(wrong, "echo")


# What is done with a forecast


def test_range_variance():
    rng = np.random.default_rng(8)
    steps = rng.normal(0.0, 0.01 / math.sqrt(2500), (1000, 2500))
    paths = np.exp(np.cumsum(steps, axis=1))
    o, c = np.ones(1000), paths[:, -1]
    h, low = np.maximum(paths.max(axis=1), 1.0), np.minimum(paths.min(axis=1), 1.0)
    measured = range_variance(o, h, low, c, o)
    # Unbiased for a diffusion (a path of 2,500 steps misses some of the range), and far less noisy than the square.
    assert measured.mean() == pytest.approx(1e-4, rel=0.08)
    assert measured.std() < 0.45 * (np.log(c) ** 2).std()
    assert range_variance(1.1, 1.1, 1.1, 1.1, 1.0) == pytest.approx(math.log(1.1) ** 2)
    for bar in ((1, 2, 1.5, 1, 1), (1, 0.9, 0.8, 1, 1), (1, 2, 0, 1, 1), (1, np.nan, 1, 1, 1)):
        with pytest.raises(DataConversionError, match="bar"):
            range_variance(*bar)


def test_scale_covariance():
    rng = np.random.default_rng(4)
    sample = rng.normal(0, 1, (500, 6)) @ rng.normal(0, 1, (6, 6)) * 0.01
    covariance = np.cov(sample.T)
    now = np.array([0.01, 0.02, 0.005, 0.03, 0.04, 0.01])
    scaled = scale_covariance(covariance, now)
    np.testing.assert_allclose(np.sqrt(np.diag(scaled)), now, rtol=1e-12)
    root = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(scaled / np.outer(now, now), covariance / np.outer(root, root), rtol=1e-12)
    np.testing.assert_array_equal(scaled, scaled.T)
    assert np.linalg.eigvalsh(scaled)[0] > 0
    np.testing.assert_allclose(scale_covariance(covariance, 2.0 * now, now), 4.0 * covariance, rtol=1e-12)
    for arguments, match in (
        ((covariance[:5], now), "`covariance` must have shape"),
        ((covariance + np.triu(np.ones((6, 6)), 1), now), "symmetric"),
        ((np.where(covariance > 0, np.nan, covariance), now), "finite"),
        ((covariance, now[:5]), "`sigmas_now` must have shape"),
        ((covariance, 0.0 * now), "`sigmas_now` must be finite and > 0"),
        ((covariance, now, -now), "`sigmas_sample`"),
        ((np.zeros((6, 6)), now), "diagonal"),
    ):
        with pytest.raises(DataConversionError, match=match):
            scale_covariance(*arguments)


def test_filtered_scenarios():
    rng = np.random.default_rng(6)
    path = 0.01 * np.exp(np.cumsum(rng.normal(0, 0.1, (3, 400)), axis=1))
    returns = np.clip(path * rng.normal(0, 1, (3, 400)), -0.9, None)
    now = np.array([0.01, 0.02, 0.03])
    ours = filtered_scenarios(returns, path, now)
    for i in range(3):
        np.testing.assert_allclose(ours[i], np.maximum(returns[i] / path[i] * now[i], -1.0), rtol=1e-12)
    np.testing.assert_allclose(filtered_scenarios(returns, np.ones((3, 400)) * now[:, None], now), returns, rtol=1e-15)
    assert filtered_scenarios([[-0.5]], [[0.01]], [0.2]).tolist() == [[-1.0]]
    for arguments, match in (
        ((returns[0], path, now), "`returns` must have shape"),
        ((returns * np.nan, path, now), "`returns` must be finite"),
        ((returns, path[:, 1:], now), "`sigma_path` must have shape"),
        ((returns, 0 * path, now), "`sigma_path` must be finite and > 0"),
        ((returns, path, now[:2]), "`sigma_now`"),
    ):
        with pytest.raises(DataConversionError, match=match):
            filtered_scenarios(*arguments)


CORRELATION = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.1], [-0.3, 0.1, 1.0]])


@pytest.mark.parametrize("nu", [math.inf, 5.0])
def test_what_a_state_draws_has_its_covariance(nu):
    state = VolatilityState(("A", "B", "C"), [0.01, 0.02, 0.005], CORRELATION, nu)
    drawn = state.draw(200_000, seed=1)
    assert drawn.shape == (3, 200_000)
    np.testing.assert_allclose(np.cov(drawn), state.covariance(), rtol=0.06, atol=2e-7)
    kurtosis = np.mean((drawn / drawn.std(axis=1, keepdims=True)) ** 4, axis=1)
    assert (kurtosis > 5).all() if nu == 5.0 else np.abs(kurtosis - 3).max() < 0.1
    np.testing.assert_array_equal(drawn, state.draw(200_000, seed=1))
    assert not np.array_equal(drawn[:, :9], state.draw(200_000, seed=2)[:, :9])
    pairs = state.draw(1000, seed=1, antithetic=True)
    np.testing.assert_allclose(pairs.sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(state.scaled(3.0).covariance(), 9.0 * state.covariance(), rtol=1e-12)
    assert (VolatilityState(("A",), [50.0], [[1.0]]).draw(100, 1) >= -1.0).all()


def test_a_singular_correlation_draws_and_a_wrong_one_is_refused():
    twins = VolatilityState(("A", "B"), [0.01, 0.02], [[1.0, 1.0], [1.0, 1.0]]).draw(100, 3)
    np.testing.assert_allclose(twins[1], 2.0 * twins[0], rtol=1e-9)
    for fields, match in (
        ({"instrument_ids": ("A", "A", "B")}, "`instrument_ids`"),
        ({"sigmas": [0.01, 0.0, 0.01]}, "`sigmas`"),
        ({"correlation": CORRELATION[:2]}, "shape"),
        ({"correlation": CORRELATION * np.nan}, "finite"),
        ({"correlation": CORRELATION * 2.0}, "ones on its diagonal"),
        ({"correlation": np.array([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]])}, "positive semi-definite"),
        ({"degrees_of_freedom": 2.0}, "`degrees_of_freedom`"),
        ({"degrees_of_freedom": math.nan}, "`degrees_of_freedom`"),
        ({"horizon_ns": 0}, "`horizon_ns`"),
    ):
        with pytest.raises(DataConversionError, match=match):
            VolatilityState(**{"instrument_ids": ("A", "B", "C"), "sigmas": [0.01, 0.02, 0.03],
                               "correlation": CORRELATION, **fields})  # fmt: skip
    with pytest.raises(ConfigurationError, match="`count`"):
        VolatilityState(("A",), [0.01], [[1.0]]).draw(3, 1, antithetic=True)


def test_models_make_a_state():
    models = {"A": EwmaVolatility(), "B": GarchVolatility(PARAMS)}
    with pytest.raises(DataConversionError, match=r"ready, ewma\(0.94\) of A"):
        volatility_state(models, np.eye(2))
    for model in models.values():
        feed(model, RETURNS)
    state = volatility_state(models, np.eye(2), degrees_of_freedom=6.0, period_ns=1000, ts=5)
    assert state.sigmas.tolist() == [models["A"].forecast(), models["B"].forecast()]
    assert (state.model, state.horizon_ns, state.ts) == ("ewma(0.94), gjr", 1000, 5)
    with pytest.raises(DataConversionError, match="one horizon"):
        volatility_state({"A": models["A"], "B": GarchVolatility(PARAMS, horizon=2)}, np.eye(2))
    with pytest.raises(DataConversionError, match="empty"):
        volatility_state({}, np.eye(0))
