"""Feature specs: a name, checked parameters, a clock and stages of normalisation, as text or from keywords.

rsi(14)                                 on every book event
rsi(14) @ 1m                            on one-minute bars built from ticks
rsi(14) @ 1s, 1m, 500 ticks             three features
sma(20) @ 1m | to_mid | zscore(500)     with stages, applied from left to right
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import _table
from tengri_fast.features.clock import EVENT_CLOCK, Clock, parse_clock
from tengri_fast.features.parameters import ParameterInfo, Value, nearest, rule_of, show_value, value_of

__all__ = [
    "ENGINE_VERSION",
    "FEATURES",
    "STAGES",
    "FeatureInfo",
    "FeatureSpec",
    "Lookback",
    "ParameterInfo",
    "StageInfo",
    "StageSpec",
    "parse_spec",
    "parse_specs",
]

ENGINE_VERSION: Final = _table.ENGINE_VERSION

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
# Stages after which a price is no level any more.
_RELATIVE = frozenset({"to_mid", "zscore", "ewm_zscore", "robust", "rank", "minmax", "difference"})
_MAX_TEXT = 8000  # 32 instruments with names of 100 characters fit


class FeatureInfo(NamedTuple):
    """One row of the feature table; `digest` is empty unless the feature is the user's."""

    kind: int
    name: str
    unit: str
    needs: str
    parameters: tuple[ParameterInfo, ...]
    lookback: str
    rule: str
    source: str
    description: str
    digest: str = ""


class StageInfo(NamedTuple):
    """One row of the stage table."""

    kind: int
    name: str
    parameters: tuple[ParameterInfo, ...]
    lookback: str
    rule: str
    source: str
    description: str


class Lookback(NamedTuple):
    """What must pass before a feature or plan is ready: so many samples of its clock and so many nanoseconds."""

    events: int
    nanoseconds: int


FEATURES: Final[dict[str, FeatureInfo]] = {
    row[0]: FeatureInfo(kind, row[0], row[1], row[2], tuple(ParameterInfo(*p) for p in row[3]), *row[4:])
    for kind, row in enumerate(_table.table())
}

STAGES: Final[dict[str, StageInfo]] = {
    row[0]: StageInfo(kind, row[0], tuple(ParameterInfo(*p) for p in row[1]), *row[2:])
    for kind, row in enumerate(_table.stages())
}


def _fill(name: str, parameters: tuple[ParameterInfo, ...], params: dict[str, object]) -> tuple[Value, ...]:
    """Every parameter's value in order, from what is given and from defaults."""
    known = [parameter.name for parameter in parameters]
    for key in params:
        if key not in known:
            raise FeatureExtractionError(f"`{key}` is not a parameter of {name}{nearest(key, known)}")
    values: list[Value] = []
    for parameter in parameters:
        if parameter.name in params:
            given = params[parameter.name]
            value = value_of(parameter, given)
            if value is None:
                raise FeatureExtractionError(f"`{parameter.name}` of {name} {rule_of(parameter)}, was {given!r}")
        elif parameter.outside:
            raise FeatureExtractionError(f"`{parameter.name}` of {name} {rule_of(parameter)}, was not given")
        else:
            value = parameter.default
        values.append(value)
    return tuple(values)


def _text(name: str, parameters: tuple[ParameterInfo, ...], values: tuple[Value, ...], full: bool) -> str:
    shown = [
        f"{p.name}={show_value(p, v)}"
        for p, v in zip(parameters, values, strict=True)
        if full or p.outside or v != p.default
    ]
    return f"{name}({', '.join(shown)})" if shown or full else name


class StageSpec:
    """One step of normalisation with its parameters; immutable and hashable.

    Parameters
    ----------
    name : str
        A row of the stage table (`STAGES`).
    **params
        Parameters of that row.

    Raises
    ------
    FeatureExtractionError
        If the name or a parameter is unknown or a value breaks its rule.
    """

    __slots__ = ("_values", "info")

    info: StageInfo
    _values: tuple[Value, ...]

    def __init__(self, name: str, /, **params: object) -> None:
        info = STAGES.get(name) if isinstance(name, str) else None
        if info is None:
            raise FeatureExtractionError(
                f"`stage` must be in the stage table, was {name!r}{nearest(str(name), [*STAGES])}"
            )
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "_values", _fill(name, info.parameters, params))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"`{name}` cannot be set: a StageSpec is immutable")

    @property
    def name(self) -> str:
        """Name of the row of the stage table."""
        return self.info.name

    @property
    def c_values(self) -> tuple[int, tuple[float, ...]]:
        """Row and parameters as C stores them."""
        return self.info.kind, tuple(value for value in self._values if isinstance(value, float))

    @property
    def canonical(self) -> str:
        """Full text with every parameter."""
        return _text(self.name, self.info.parameters, self._values, True)

    def __str__(self) -> str:
        return _text(self.name, self.info.parameters, self._values, False)

    def __repr__(self) -> str:
        return f"StageSpec({self.canonical!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StageSpec) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)


def _is_sound(clock: Clock) -> bool:
    """Whether a clock, perhaps made by hand, is one that its text gives back."""
    try:
        return clock.kind in _table.CLOCK_KINDS and parse_clock(str(clock)) == clock
    except (TypeError, ValueError, OverflowError):
        return False


class FeatureSpec:
    """One feature with its parameters, clock and stages; immutable and hashable.

    Parameters
    ----------
    name : str
        A row of the feature table (`FEATURES`).
    clock : Clock or str, optional
        When it steps, such as "1m" or "500 ticks"; every event by default.
    stages : sequence of StageSpec or str
        Steps of normalisation, applied in order; three at most.
    **params
        Parameters of that row; what is left out takes the row's default. A window is a duration ("1s", "250ms", "5m")
        or a whole number of events (samples of the clock, for features of prices).

    Attributes
    ----------
    name : str
    params : dict
        Every parameter as the C table stores it: nanoseconds for durations, minus the count for windows of events;
        names for other instruments and sources.
    clock : Clock
    stages : tuple of StageSpec
    canonical : str
        Full text with every parameter; what the plan hash is made of.
    lookback : Lookback
        In samples of its clock.

    Raises
    ------
    FeatureExtractionError
        If the name or a parameter is unknown (the nearest is named) or a value breaks its rule.
    """

    __slots__ = ("_values", "clock", "info", "lookback", "stages")

    info: FeatureInfo
    clock: Clock
    stages: tuple[StageSpec, ...]
    lookback: Lookback
    _values: tuple[Value, ...]

    def __init__(
        self,
        name: str,
        /,
        *,
        clock: Clock | str = EVENT_CLOCK,
        stages: Sequence[StageSpec | str] = (),
        **params: object,
    ) -> None:
        info = FEATURES.get(name) if isinstance(name, str) else None
        if info is None:
            raise FeatureExtractionError(f"`feature` must be in the feature table, was {name!r}"
                                         + nearest(str(name), list(FEATURES)))  # fmt: skip
        made = parse_clock(clock) if isinstance(clock, str) else clock
        if not isinstance(made, Clock) or not _is_sound(made):
            raise FeatureExtractionError(f"`clock` of {name} must be a Clock or its text, was {made!r}")
        if isinstance(stages, str) or not isinstance(stages, Sequence):
            raise FeatureExtractionError(f"`stages` of {name} must be a sequence of stages, was {stages!r}")
        steps = tuple(_parse_stage(stage) if isinstance(stage, str) else stage for stage in stages)
        for step in steps:
            if not isinstance(step, StageSpec):
                raise FeatureExtractionError(f"`stages` of {name} must hold StageSpec or text, held {step!r}")
        if len(steps) > _table.STAGES:
            raise FeatureExtractionError(f"`stages` of {name} must be at most {_table.STAGES}, were {len(steps)}")
        values = _fill(name, info.parameters, params)
        # Names become numbers in a plan; here as many instruments as are named are enough for the rules.
        numbers = tuple(
            value if isinstance(value, float) else 2.0 ** len(value) - 1.0 if isinstance(value, tuple) else 1.0
            for value in values
        )
        lookback = _table.lookback(info.kind, numbers, made.c_values, tuple(step.c_values for step in steps))
        if lookback is None:
            shown = ", ".join(f"{p.name}={show_value(p, v)}" for p, v in zip(info.parameters, values, strict=True))
            raise FeatureExtractionError(f"`{name}` must keep its rule ({info.rule}), was {shown}")
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "clock", made)
        object.__setattr__(self, "stages", steps)
        object.__setattr__(self, "lookback", Lookback(*lookback))
        object.__setattr__(self, "_values", values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"`{name}` cannot be set: a FeatureSpec is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"`{name}` cannot be deleted: a FeatureSpec is immutable")

    @property
    def name(self) -> str:
        """Name of the row of the feature table."""
        return self.info.name

    @property
    def kind(self) -> int:
        """Number of the row of the feature table."""
        return self.info.kind

    @property
    def values(self) -> tuple[Value, ...]:
        """Parameters in the order of the table, as C stores them; names for other instruments and sources."""
        return self._values

    @property
    def params(self) -> dict[str, Value]:
        """Parameters by name, as C stores them; names for other instruments and sources."""
        return {p.name: v for p, v in zip(self.info.parameters, self._values, strict=True)}

    @property
    def legs(self) -> tuple[str, ...]:
        """Other instruments that it reads."""
        found: list[str] = []
        for parameter, value in zip(self.info.parameters, self._values, strict=True):
            if parameter.type in {"instrument", "instruments"}:
                found += [value] if isinstance(value, str) else [str(name) for name in value]  # type: ignore[union-attr]
        return tuple(dict.fromkeys(found))

    @property
    def sources(self) -> tuple[str, ...]:
        """External sources that it reads."""
        pairs = zip(self.info.parameters, self._values, strict=True)
        return tuple(str(value) for parameter, value in pairs if parameter.type == "source")

    @property
    def is_price(self) -> bool:
        """Whether it is a price or a difference of prices, which is no input for a model.

        Float32 has too few digits for a price of 65,000, and what a model learns at one price is wrong at another. A
        stage that makes the value relative helps (`to_mid`, `zscore` ...); one that keeps the level (`clip`) does not.
        """
        unit = self.info.unit
        raw = unit.startswith("price") or ("price difference" in unit and self.params.get("relative") == 0.0)
        return raw and not any(stage.name in _RELATIVE for stage in self.stages)

    def _written(self, full: bool) -> str:
        text = _text(self.name, self.info.parameters, self._values, full)
        if self.clock != EVENT_CLOCK:
            text += f" @ {self.clock}"
        return " | ".join([text, *(stage.canonical if full else str(stage) for stage in self.stages)])

    @property
    def canonical(self) -> str:
        """Full text with every parameter."""
        return self._written(True)

    def __str__(self) -> str:
        return self._written(False)

    def __repr__(self) -> str:
        return f"FeatureSpec({self.canonical!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureSpec) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)


# ---------------------------------------------------------------- text


def _cut(text: str, mark: str) -> list[str]:
    """Parts between marks that stand outside quotes and brackets."""
    parts, begin, quote, depth = [], 0, "", 0
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif letter == mark and depth == 0:
            parts.append(text[begin:at])
            begin = at + 1
    return [*parts, text[begin:]]


def _call(text: str, parameters: dict[str, tuple[ParameterInfo, ...]]) -> tuple[str, dict[str, object]]:
    """Name and keyword arguments of ``name(1, key=2)``. Only literals are accepted; nothing is evaluated."""
    stripped = text.strip()
    if _NAME.fullmatch(stripped):
        return stripped, {}
    wrong = FeatureExtractionError(f'`spec` must look like "rsi(14)" or "spread(tick=0.1) @ 1m", was {text[:80]!r}')
    try:
        call = ast.parse(stripped, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise wrong
    name = call.func.id
    params: dict[str, object] = {}
    try:
        positional = [ast.literal_eval(argument) for argument in call.args]
        for keyword in call.keywords:
            if keyword.arg is None:
                raise wrong
            if keyword.arg in params:
                raise FeatureExtractionError(f"`{keyword.arg}` of {name} must be given once, was given twice")
            params[keyword.arg] = ast.literal_eval(keyword.value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise wrong from None
    if positional and name in parameters:
        known = [parameter.name for parameter in parameters[name]]
        if len(positional) > len(known):
            raise FeatureExtractionError(f"`{name}` must have at most {len(known)} parameters, had {len(positional)}")
        for key, value in zip(known, positional, strict=False):
            if key in params:
                raise FeatureExtractionError(f"`{key}` of {name} must be given once, was given twice")
            params[key] = value
    return name, params


def _parse_stage(text: str) -> StageSpec:
    name, params = _call(text, {name: info.parameters for name, info in STAGES.items()})
    return StageSpec(name, **params)


def parse_specs(text: str) -> tuple[FeatureSpec, ...]:
    """One spec per clock from text such as ``rsi(14) @ 1s, 1m, 500 ticks | zscore(500)``.

    Parameters without a name follow the order of the table. Only literals are accepted; nothing is evaluated.

    Raises
    ------
    FeatureExtractionError
        If the text is not of this form, or a spec breaks a rule.
    """
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise FeatureExtractionError(f"`spec` must be a text of at most {_MAX_TEXT} characters, was {str(text)[:60]!r}")
    first, *stages = _cut(text, "|")
    call, *clocks = _cut(first, "@")
    if len(clocks) > 1:
        raise FeatureExtractionError(f"`spec` must have one `@`, was {text[:80]!r}")
    name, params = _call(call, {name: info.parameters for name, info in FEATURES.items()})
    steps = tuple(_parse_stage(stage) for stage in stages)
    chosen = [parse_clock(clock) for clock in clocks[0].split(",")] if clocks else [EVENT_CLOCK]
    for reserved in ("clock", "stages"):
        if reserved in params:
            raise FeatureExtractionError(
                f"`{reserved}` of {name} must be written behind it, as in `{name} @ 1m | clip(3)`"
            )
    return tuple(FeatureSpec(name, clock=clock, stages=steps, **params) for clock in chosen)


def parse_spec(text: str) -> FeatureSpec:
    """One spec from text such as ``rsi(14)``, ``order_flow_imbalance(window='1s', levels=5) @ 1s`` or ``imbalance``.

    Raises
    ------
    FeatureExtractionError
        If the text is not of this form, names several clocks, or breaks a rule.
    """
    found = parse_specs(text)
    if len(found) != 1:
        raise FeatureExtractionError(f"`spec` must name one clock, named {len(found)}: {text[:80]!r}")
    return found[0]
