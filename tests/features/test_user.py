"""Features of the user: numba and native ones, what they see, what is refused, clocks, stages and state."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import carray, cfunc, float64, njit, types

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FEATURES, FeaturePlan, UserFeature, parse_spec, register_feature
from tengri_fast.features.user import register_native_feature
from tengri_fast.market.columns import QuoteColumns, TradeColumns

POINTER = types.CPointer(float64)


@register_feature
class Slow(UserFeature):
    """An exponential mean of the close, `weight` for the new one."""

    name, unit, state, lookback = "test_slow", "price", 1, 3
    parameters = {"weight": 0.25}  # noqa: RUF012

    @staticmethod
    def update(state, view, param):
        if view[13] == 1.0:
            state[0] = view[3]
        else:
            state[0] += param[0] * (view[3] - state[0])

    @staticmethod
    def value(state, param):
        return state[0]


@register_feature
class Sign(UserFeature):
    """Sum of the sides of all trades."""

    name, unit, state, on_trades = "test_sides", "trades", 1, True

    @staticmethod
    def update(state, view, param):
        state[0] += view[11]

    @staticmethod
    def value(state, param):
        return state[0]


@cfunc(types.void(POINTER, POINTER, POINTER))
def native_update(state, view, param):
    memory, seen, given = carray(state, (2,)), carray(view, (16,)), carray(param, (4,))
    memory[0] += given[0] * seen[3]
    memory[1] = seen[12]


@cfunc(float64(POINTER, POINTER))
def native_value(state, param):
    return carray(state, (2,))[0]


register_native_feature("test_native", native_update.address, native_value.address, version="1", unit="price", state=2,
                        parameters={"times": 2})  # fmt: skip


def quotes(count: int = 400, seed: int = 1) -> QuoteColumns:
    rng = np.random.default_rng(seed)
    ts = np.cumsum(rng.integers(0, 10**9, count)).astype(np.uint64) + np.uint64(10**15)
    mid = 100 + 0.01 * np.cumsum(rng.integers(-3, 4, count))
    return QuoteColumns(ts, ts, mid - 0.01, mid + 0.01, rng.uniform(1, 2, count), rng.uniform(1, 2, count))


def smoothed(prices: np.ndarray, weight: float) -> np.ndarray:
    out = prices.copy()
    for i in range(1, len(prices)):
        out[i] = out[i - 1] + weight * (prices[i] - out[i - 1])
    return out


def test_it_is_the_plain_function_on_every_event() -> None:
    data = quotes()
    rows = FeaturePlan(["test_slow", "test_slow(0.5)", "test_native", "test_native(times=-1)"]).compute(data)
    mid = 0.5 * (data.bid_price + data.ask_price)
    assert rows.ready_from.tolist() == [2, 2, 0, 0]
    np.testing.assert_allclose(rows.values[2:, 0], smoothed(mid, 0.25)[2:], rtol=1e-13)
    np.testing.assert_allclose(rows.values[2:, 1], smoothed(mid, 0.5)[2:], rtol=1e-13)
    np.testing.assert_allclose(rows.values[:, 2], 2 * np.cumsum(mid), rtol=1e-13)
    np.testing.assert_array_equal(rows.values[:, 3], -0.5 * rows.values[:, 2])


def test_it_has_clocks_and_stages() -> None:
    data = quotes()
    plan = FeaturePlan(["test_slow @ 5 ticks", "test_slow @ 5 ticks | to_mid", "test_slow | difference(2)"])
    rows = plan.compute(data)
    mid = 0.5 * (data.bid_price + data.ask_price)
    closes = np.arange(4, len(mid), 5)
    wanted = smoothed(mid[closes], 0.25)
    np.testing.assert_allclose(rows.values[closes[2:], 0], wanted[2:], rtol=1e-13)
    np.testing.assert_array_equal(rows.values[closes[2:-1] + 1, 0], rows.values[closes[2:-1], 0])  # held
    np.testing.assert_allclose(rows.values[closes[2:], 1], 1e4 * (wanted[2:] / mid[closes[2:]] - 1), atol=1e-8)
    each = smoothed(mid, 0.25)
    np.testing.assert_allclose(rows.values[4:, 2], each[4:] - each[2:-2], atol=1e-12)
    assert "test_slow" in plan.explain()


def test_it_steps_at_trades_when_it_says_so() -> None:
    data = quotes(50)
    at = np.arange(20, dtype=np.uint64) * np.uint64(10**9) + data.ts_init[0]
    side = np.random.default_rng(0).integers(-1, 2, 20).astype(np.int32)
    trades = TradeColumns(at, at, np.full(20, 100.0), np.ones(20), side)
    rows = FeaturePlan(["test_sides", "test_sides | difference"]).compute(data, trades, clock="trade")
    assert rows.values[:, 0].tolist() == np.cumsum(side).tolist()
    assert rows.values[1:, 1].tolist() == side[1:].tolist()


def test_state_goes_to_bytes_and_back_in_the_middle_of_a_bar() -> None:
    data = quotes(203)
    plan = FeaturePlan(["test_slow @ 7 ticks | zscore(5)", "test_native @ 20s", "test_sides"])
    whole = plan.compute(data)
    state, loaded = plan.state(), plan.state()
    plan.compute(data[:101], state=state)
    loaded.from_bytes(state.to_bytes())
    assert plan.compute(data[101:], state=loaded).values.tobytes() == whole.values[101:].tobytes()
    assert loaded.to_bytes() != state.to_bytes()


def test_states_of_one_plan_run_in_threads() -> None:
    """compute() lets go of the interpreter; plans are shared, states are not, and the table of functions only grows."""
    data = quotes(3_000)
    plan = FeaturePlan(["test_slow @ 3 ticks", "test_native", "rsi(14) @ 1s, 3 ticks | rank(50)"])
    whole = plan.compute(data).values.tobytes()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(plan.compute, data) for _ in range(12)]
        register_feature(make(5.0, "test_meanwhile"))
        assert all(rows.result().values.tobytes() == whole for rows in found)


def make(factor: float, name: str = "test_factor") -> type[UserFeature]:
    class Factor(UserFeature):
        state, unit = 1, "price"

        @staticmethod
        def update(state, view, param):
            state[0] = factor * view[3]

        @staticmethod
        def value(state, param):
            return state[0]

    Factor.name = name
    return Factor


def test_the_same_again_is_nothing_and_another_source_is_refused() -> None:
    register_feature(Slow)
    register_feature(make(2.0))
    register_feature(make(2.0))
    with pytest.raises(FeatureExtractionError, match="'test_factor' is registered with another source"):
        register_feature(make(3.0))  # the text is the same, the number it closes over is not
    with pytest.raises(FeatureExtractionError, match="registered with another version"):
        register_native_feature("test_native", native_update.address, native_value.address, version="2", unit="price",
                                state=2, parameters={"times": 2})  # fmt: skip
    state = FeaturePlan("test_factor").state()
    state.update_quote(9.0, 11.0, 1, 1, 0)
    assert state.row().tolist() == [20.0]


def test_what_it_calls_is_part_of_its_source() -> None:
    def calling(helper) -> type[UserFeature]:
        class Calling(UserFeature):
            name, state, unit = "test_calling", 1, "price"

            @staticmethod
            def update(state, view, param):
                state[0] = helper(view[3])

            @staticmethod
            def value(state, param):
                return state[0]

        return Calling

    register_feature(calling(njit(lambda x: x + 1)))
    with pytest.raises(FeatureExtractionError, match="another source"):
        register_feature(calling(njit(lambda x: x + 2)))


def test_another_digest_is_another_plan() -> None:
    register_feature(make(2.0, "test_two"))
    register_feature(make(2.0, "test_two_b"))
    assert FEATURES["test_two"].digest != FEATURES["test_two_b"].digest
    one, other = FeaturePlan("test_two"), FeaturePlan("test_two_b")
    assert one.hash != other.hash
    with pytest.raises(FeatureExtractionError, match="must belong to plan"):
        other.state().from_bytes(one.state().to_bytes())
    # The same name with another digest, as in a process where the source has changed.
    kept = FEATURES["test_two"]
    FEATURES["test_two"] = kept._replace(digest="0" * 64)
    try:
        changed = FeaturePlan("test_two")
    finally:
        FEATURES["test_two"] = kept
    assert changed.hash != one.hash
    with pytest.raises(FeatureExtractionError, match="must belong to plan"):
        changed.state().from_bytes(one.state().to_bytes())


def declared(**attributes: object) -> type[UserFeature]:
    return type("Declared", (make(1.0),), {"name": "test_declared", **attributes})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "rsi"}, "must not be in the feature table"),
        ({"name": "Bad"}, "`name` must be lower-case"),
        ({"name": "a" * 64}, "`name` must be lower-case"),
        ({"name": "x y"}, "`name` must be lower-case"),
        ({"name": 3}, "`name` must be lower-case"),
        ({"unit": ""}, "`unit` of test_declared must be a text"),
        ({"state": -1}, "`state` of test_declared must be a whole number from 0"),
        ({"state": 1_000_001}, "`state` of test_declared must be"),
        ({"state": True}, "`state` of test_declared must be"),
        ({"state": 0}, "must stay inside `state` of 0"),
        ({"lookback": 0}, "`lookback` of test_declared must be"),
        ({"lookback": 2**32}, "`lookback` of test_declared must be"),
        ({"parameters": {c: 1 for c in "abcde"}}, "at most 4, were 5"),
        ({"parameters": {"clock": 1}}, "must have names like 'period'"),
        ({"parameters": {3: 1}}, "must have names like 'period'"),
        ({"parameters": {"a": float("nan")}}, "must have a finite number as default"),
        ({"parameters": {"a": True}}, "must have a finite number as default"),
        ({"parameters": ["a"]}, "must be a dict"),
        ({"update": UserFeature.update}, "`update` of test_declared must be defined"),
        ({"update": staticmethod(lambda state, view, param: np.no_such_thing)}, "must compile with numba"),
    ],
)
def test_wrong_declarations_are_refused(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(FeatureExtractionError) as caught:
        register_feature(declared(**attributes))
    assert message in str(caught.value)
    assert "test_declared" not in FEATURES


def test_wrong_native_declarations_are_refused() -> None:
    for change, message in (
        ({"update": 0}, "must be addresses"),
        ({"update": -5}, "must be addresses"),
        ({"value": "x"}, "must be addresses"),
        ({"version": ""}, "`version` of test_wrong must be a text"),
        ({"parameters": [1]}, "must be a dict"),
        ({"name": "rsi"}, "must not be in the feature table"),
    ):
        given = {"name": "test_wrong", "update": native_update.address, "value": native_value.address, "version": "1",
                 "unit": "price", "state": 2}  # fmt: skip
        with pytest.raises(FeatureExtractionError) as caught:
            register_native_feature(**(given | change))
        assert message in str(caught.value)
    with pytest.raises(FeatureExtractionError, match="must be a subclass of UserFeature"):
        register_feature(3)  # type: ignore[arg-type]


def test_what_is_not_finite_is_zero_and_raises_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    @register_feature
    class Divide(UserFeature):
        name, unit, state = "test_divide", "1", 1

        @staticmethod
        def update(state, view, param):
            state[0] = 1.0 / (view[13] - 2.0)

        @staticmethod
        def value(state, param):
            return state[0]

    state = FeaturePlan("test_divide").state()
    found = []
    for i in range(3):
        state.update_quote(1, 2, 1, 1, i)
        found.append(state.row()[0])
    assert found == [-1.0, 0.0, 1.0]
    assert capfd.readouterr().err == ""


def test_it_cannot_change_the_plan() -> None:
    @register_feature
    class Writes(UserFeature):
        name, unit, state = "test_writes", "1", 1
        parameters = {"a": 3.0}  # noqa: RUF012

        @staticmethod
        def update(state, view, param):
            state[0] += param[0]
            param[0] = 99.0
            view[3] = -1.0

        @staticmethod
        def value(state, param):
            before = param[0]
            param[0] = -7.0
            return state[0] + before

    plan = FeaturePlan(["test_writes", "mid_return(1)"])
    state = plan.state()
    for i in range(4):
        state.update_quote(1, 2, 1, 1, i)
        assert state.row()[0] == 3.0 * (i + 2)
    plan.state().from_bytes(state.to_bytes())  # a block whose plan had changed would be refused


def test_minus_zero_is_zero_like_its_text() -> None:
    spec = parse_spec("test_slow(-0.0)")
    assert spec.canonical == "test_slow(weight=0)"
    assert np.signbit(spec.values[0]) == np.False_
    assert FeaturePlan([spec]).hash == FeaturePlan(["test_slow(0)"]).hash
    data = FeaturePlan([spec]).state().to_bytes()
    FeaturePlan(["test_slow(0)"]).state().from_bytes(data)


def test_the_c_functions_are_those_that_were_given() -> None:
    """The address is called as the documented C signature; ctypes is an independent caller."""
    update = ctypes.CFUNCTYPE(None, *[ctypes.POINTER(ctypes.c_double)] * 3)(native_update.address)
    value = ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.POINTER(ctypes.c_double)] * 2)(native_value.address)
    memory, view, param = (ctypes.c_double * 2)(), (ctypes.c_double * 16)(), (ctypes.c_double * 4)(2.0)
    state = FeaturePlan("test_native").state()
    for i, mid in enumerate((10.0, 11.5, 9.25)):
        view[3], view[12] = mid, i
        update(memory, view, param)
        state.update_quote(mid - 0.25, mid + 0.25, 1, 1, i * 10**9)
        assert state.row()[0] == value(memory, param)
