"""Features of your own: two plain functions, compiled by numba (or written in Cython or C), stepped inside the plan.

    class RangePosition(UserFeature):
        '''Where the close stands between the highest and the lowest price since the start.'''

        name, unit, state, lookback = "range_position", "fraction", 2, 2

        @staticmethod
        def update(state, view, param):
            state[0] = view[HIGH] if view[COUNT] == 1.0 else max(state[0], view[HIGH])
            ...

        @staticmethod
        def value(state, param):
            ...

    register_feature(RangePosition)
    FeaturePlan(["range_position @ 1m | zscore(500)"])

A feature of yours has what every other one has: clocks, stages, live and research by the same code, state to bytes, a
place in the plan's hash. It cannot see the future, because nothing but the latest event is handed to it; what it must
promise is that its two functions depend on nothing but their arguments. `tengri check-lookahead` tests that.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import _table
from tengri_fast.features.parameters import ParameterInfo
from tengri_fast.features.spec import FEATURES, FeatureInfo

__all__ = [
    "AGGRESSOR",
    "ASK",
    "ASK_SIZE",
    "BID",
    "BID_SIZE",
    "CLOSE",
    "COUNT",
    "HIGH",
    "LOW",
    "OPEN",
    "SECONDS",
    "TRADE_PRICE",
    "TRADE_SIZE",
    "VOLUME",
    "UserFeature",
    "register_feature",
    "register_native_feature",
]

# What `view` holds: the latest sample of the feature's clock, the book, the last trade (0 before the first), event time
# in seconds since the first event, and how many times the feature was stepped, this one included.
OPEN, HIGH, LOW, CLOSE, VOLUME = 0, 1, 2, 3, 4
BID, ASK, BID_SIZE, ASK_SIZE = 5, 6, 7, 8
TRADE_PRICE, TRADE_SIZE, AGGRESSOR = 9, 10, 11
SECONDS, COUNT = 12, 13
_VIEW: Final = 16
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MOST_DOUBLES = 1_000_000
_MOST_CALLS: Final = 8  # functions that call functions, for the digest

# Compiled functions and names live as long as the process: the C table points into them.
_kept: list[object] = []
_known: dict[str, str] = {}

Array = npt.NDArray[np.float64]


class UserFeature:
    """What a feature of your own declares; a class that is never made an object of.

    Attributes
    ----------
    name : str
        Lower case, at most 63 letters, digits and underscores; not in the feature table.
    unit : str
    state : int
        How many float64 numbers it remembers; they start at zero.
    lookback : int
        Samples of its clock before it is ready.
    parameters : dict of str to float
        Names and defaults of up to four numbers, which arrive in `param` in this order.
    on_trades : bool
        On the event clock, step at trades instead of book events.
    source : str
        Where the formula is from.
    """

    name: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    state: ClassVar[int] = 0
    lookback: ClassVar[int] = 1
    parameters: ClassVar[dict[str, float]] = {}
    on_trades: ClassVar[bool] = False
    source: ClassVar[str] = "the user"

    @staticmethod
    def update(state: Array, view: Array, param: Array) -> None:
        """Take in the latest event: change `state` in place.

        Parameters
        ----------
        state : float64 [state]
        view : float64 [16]
            By the constants of this module (`CLOSE`, `BID` ...).
        param : float64 [4]
        """
        raise NotImplementedError

    @staticmethod
    def value(state: Array, param: Array) -> float:
        """The feature, from the state alone; what is not finite counts as 0."""
        raise NotImplementedError


def _compiled(update: Callable[..., Any], value: Callable[..., Any], size: int) -> tuple[Any, Any]:
    from numba import carray, cfunc, float64, njit, types  # type: ignore[attr-defined]

    # Division by zero gives infinity or NaN, as in C: an exception would be written to stderr at every event.
    inner_update, inner_value = njit(update, error_model="numpy"), njit(value, error_model="numpy")
    pointer = types.CPointer(float64)  # type: ignore[no-untyped-call]

    def c_update(state: Any, view: Any, param: Any) -> None:
        inner_update(carray(state, (size,)), carray(view, (_VIEW,)), carray(param, (4,)))

    def c_value(state: Any, param: Any) -> Any:
        return inner_value(carray(state, (size,)), carray(param, (4,)))

    return cfunc(types.void(pointer, pointer, pointer))(c_update), cfunc(float64(pointer, pointer))(c_value)


def _told(thing: object, depth: int = 0) -> str:
    """What a function is made of, as text: its source, and the numbers, arrays, functions that its names stand for."""
    thing = getattr(thing, "py_func", thing)
    if isinstance(thing, np.ndarray):
        return f"{thing.dtype}{thing.shape}{hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()}"
    if not inspect.isfunction(thing) or depth == _MOST_CALLS:
        return repr(thing) if isinstance(thing, int | float | str | tuple | np.generic | None) else type(thing).__name__
    names = inspect.getclosurevars(thing)
    parts = [textwrap.dedent(inspect.getsource(thing)), repr(thing.__defaults__)]
    for key, value in sorted({**names.globals, **names.nonlocals}.items()):
        if value is not thing:
            parts.append(f"{key} = {_told(value, depth + 1)}")
    return "\n".join(parts)


def _try_out(name: str, feature: type[UserFeature], size: int, param: list[float]) -> None:
    """A few steps as plain Python, where NumPy sees an index out of range; compiled code would write there."""
    state, numbers = np.zeros(size), np.array([*param, 0.0, 0.0, 0.0, 0.0][:4])
    with np.errstate(all="ignore"):
        for count in (1.0, 2.0, 3.0):
            view = np.array([100, 101, 99, 100.5, 7, 100, 101, 3, 4, 100, 2, 1, count, count, 0, 0], dtype=np.float64)
            try:
                feature.update(state, view, numbers)
                feature.value(state, numbers)
            except IndexError as error:
                raise FeatureExtractionError(f"`{name}` must stay inside `state` of {size}: {error}") from None
            except (ArithmeticError, TypeError, ValueError):
                return  # what only compiled code can do, such as a division of plain numbers by zero, cannot be tried


def _enter(info: FeatureInfo, size: int, lookback: int, on_trades: bool, update: int, value: int) -> None:
    kind = _table.register(info.name, size, lookback, on_trades, update, value)
    if kind < 0:
        raise FeatureExtractionError(f"`name` must be free and the table have room (256 features), was {info.name!r}")
    FEATURES[info.name] = info._replace(kind=kind)
    _known[info.name] = info.digest


def _checked(name: str, unit: str, size: int, lookback: int, parameters: dict[str, float]) -> tuple[ParameterInfo, ...]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FeatureExtractionError(f"`name` must be lower-case letters, digits and underscores, was {name!r}")
    if name in FEATURES and name not in _known:
        raise FeatureExtractionError(f"`name` must not be in the feature table, was {name!r}")
    if not isinstance(unit, str) or not unit:
        raise FeatureExtractionError(f"`unit` of {name} must be a text such as 'bps', was {unit!r}")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _MOST_DOUBLES:
        raise FeatureExtractionError(
            f"`state` of {name} must be a whole number from 0 to {_MOST_DOUBLES}, was {size!r}"
        )
    if isinstance(lookback, bool) or not isinstance(lookback, int) or not 1 <= lookback <= 2**31:
        raise FeatureExtractionError(f"`lookback` of {name} must be a whole number from 1 to {2**31}, was {lookback!r}")
    if not isinstance(parameters, dict):
        raise FeatureExtractionError(f"`parameters` of {name} must be a dict of names to numbers, was {parameters!r}")
    if len(parameters) > _table.PARAMETERS:
        raise FeatureExtractionError(
            f"`parameters` of {name} must be at most {_table.PARAMETERS}, were {len(parameters)}"
        )
    infos = []
    for key, default in parameters.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key) or key in {"clock", "stages"}:
            raise FeatureExtractionError(f"`parameters` of {name} must have names like 'period', had {key!r}")
        if isinstance(default, bool) or not isinstance(default, int | float) or not -1e18 <= default <= 1e18:
            raise FeatureExtractionError(f"`{key}` of {name} must have a finite number as default, had {default!r}")
        infos.append(ParameterInfo(key, "any", float(default), -1e18, 1e18))
    return tuple(infos)


def register_feature(feature: type[UserFeature]) -> type[UserFeature]:
    """Compile a feature and enter it into the table, for the life of the process; also usable as a decorator.

    Registering the same source twice is nothing; another source under the same name is refused. The source is the text
    of both functions and of the Python functions that they call, and the numbers and arrays that their names stand for.

    Before it is entered, it makes three steps as plain Python, to find an index outside `state`. Compiled, nothing is
    checked: an index that a later event makes wrong damages memory, as in C. A division by zero gives infinity or NaN.

    Raises
    ------
    FeatureExtractionError
        If a declaration breaks its rule, or numba cannot compile a function (its reason is told).
    """
    if not isinstance(feature, type) or not issubclass(feature, UserFeature):
        raise FeatureExtractionError(f"`feature` must be a subclass of UserFeature, was {feature!r}")
    name, size = feature.name, feature.state
    infos = _checked(name, feature.unit, size, feature.lookback, feature.parameters)
    for function in ("update", "value"):
        if getattr(feature, function) is getattr(UserFeature, function):
            raise FeatureExtractionError(f"`{function}` of {name} must be defined, was not")
    try:
        sources = [_told(getattr(feature, key)) for key in ("update", "value")]
    except (OSError, TypeError, ValueError) as error:
        raise FeatureExtractionError(
            f"`{name}` must have readable source, which its hash is made of: {error}"
        ) from None
    facts = (name, feature.unit, size, feature.lookback, tuple(feature.parameters.items()), feature.on_trades)
    digest = hashlib.sha256("\n".join([repr(facts), *sources]).encode()).hexdigest()
    if name in _known:
        if _known[name] != digest:
            raise FeatureExtractionError(f"`name` must be free, {name!r} is registered with another source")
        return feature
    try:
        update, value = _compiled(feature.update, feature.value, size)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise FeatureExtractionError(f"`{name}` must compile with numba: {reason[0] if reason else error}") from error
    _try_out(name, feature, size, [info.default for info in infos])
    about = inspect.cleandoc(feature.__doc__ or name).splitlines()[0]
    info = FeatureInfo(
        0,
        name,
        feature.unit,
        "trade" if feature.on_trades else "book",
        infos,
        f"{feature.lookback} samples",
        "what is not finite counts as 0",
        feature.source,
        about,
        digest,
    )
    _kept.extend((update, value, name))
    _enter(info, size, feature.lookback, feature.on_trades, update.address, value.address)
    return feature


def register_native_feature(
    name: str,
    update: int,
    value: int,
    *,
    version: str,
    unit: str,
    state: int,
    lookback: int = 1,
    parameters: dict[str, float] | None = None,
    on_trades: bool = False,
    source: str = "the user",
    description: str = "",
) -> None:
    """Enter a feature written in Cython or C by the addresses of its two functions.

    Parameters
    ----------
    name : str
    update, value : int
        Addresses of ``void update(double *state, const double *view, const double *param)`` and ``double value(const
        double *state, const double *param)``. They must not raise, allocate, or need the interpreter's lock, and must
        stay loaded.
    version : str
        Stands for the code in the plan's hash; change it when the numbers change.
    unit, state, lookback, parameters, on_trades, source
        As in `UserFeature`.
    description : str

    Raises
    ------
    FeatureExtractionError
        If a declaration breaks its rule or the name is taken.
    """
    given = {} if parameters is None else parameters
    infos = _checked(name, unit, state, lookback, given)
    if not isinstance(version, str) or not version:
        raise FeatureExtractionError(f"`version` of {name} must be a text, was {version!r}")
    if not all(isinstance(at, int) and 0 < at < 2**64 for at in (update, value)):
        raise FeatureExtractionError(f"`update` and `value` of {name} must be addresses, were {update!r} and {value!r}")
    facts = (name, version, unit, state, lookback, tuple(given.items()), on_trades)
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    if name in _known and _known[name] != digest:
        raise FeatureExtractionError(f"`name` must be free, {name!r} is registered with another version")
    info = FeatureInfo(
        0,
        name,
        unit,
        "trade" if on_trades else "book",
        infos,
        f"{lookback} samples",
        "what is not finite counts as 0",
        source,
        description or name,
        digest,
    )
    _enter(info, state, lookback, on_trades, update, value)
