"""Configuration: a TOML file in, one frozen and fully checked object out.

Every problem is a `ConfigurationError` that names file, line, key, rule and value, and all problems of a file are told
at once. `schema.py` is the table of keys; this module checks a document against it.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import msgspec.inspect as inspect

from tengri_fast.errors import ConfigurationError, FeatureExtractionError
from tengri_fast.runtime.config_check import Checker, Override, shortened, shown, unwrap
from tengri_fast.runtime.durations import Frequency, format_duration
from tengri_fast.runtime.manager import TengriConfigManager
from tengri_fast.runtime.schema import (
    BacktestSection,
    ControlSection,
    DataSourcesSection,
    ExecutionSection,
    Money,
    NeuralSection,
    NodeSection,
    PolicySection,
    ReportSection,
    RiskSection,
    StrategySection,
)
from tengri_fast.runtime.toml_text import Path as KeyPath
from tengri_fast.runtime.toml_text import join_path, key_lines, to_toml

__all__ = ["TengriConfig", "TengriConfigManager", "load_config", "parse_config", "zoo_folder"]

MAX_FILE_BYTES = 1 << 20
MAX_PROBLEMS_SHOWN = 25
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_STEP = re.compile(r"([A-Za-z0-9_-]+)((?:\[[0-9]{1,6}\])*)")


class Origin(msgspec.Struct, frozen=True):
    """Where a configuration came from, so that errors can point at it."""

    file: str | None = None
    folder: str | None = None
    lines: dict[KeyPath, int] = {}
    overrides: dict[KeyPath, str] = {}

    def line(self, path: KeyPath) -> int | None:
        """Line of a key, or of the nearest table around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def where(self, path: KeyPath) -> str:
        """What an error message begins with: the file and line, or the override."""
        for key, text in self.overrides.items():
            if path[: len(key)] == key:
                return f"--set {shortened(f'{join_path(key)}={text}')}: "
        line = self.line(path)
        if self.file is None:
            return ""
        return f"{self.file}:{line}: " if line is not None else f"{self.file}: "


class TengriConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The effective configuration: every key has its value or its default, and every rule holds.

    Made by `load_config`, `parse_config` or `TengriConfig.from_dict`; the constructor itself checks nothing. Durations
    are nanoseconds, sizes are exact decimals, lists are tuples.

    Attributes
    ----------
    strategy, neural, policy, risk, execution, data_sources, node, report
        Sections of the same name; see `tengri_fast.runtime.schema`.
    backtest, control
        Sections that are None when the file does not have them.
    origin : Origin
        File, folder and lines, used in error messages only.
    """

    strategy: StrategySection
    neural: NeuralSection
    policy: PolicySection = PolicySection()
    risk: RiskSection = RiskSection()
    execution: ExecutionSection = ExecutionSection()
    data_sources: DataSourcesSection = DataSourcesSection()
    backtest: BacktestSection | None = None
    node: NodeSection = NodeSection()
    report: ReportSection = ReportSection()
    control: ControlSection | None = None
    origin: Annotated[Origin, msgspec.Meta(extra={"hidden": True})] = Origin()

    @classmethod
    def from_dict(cls, document: Mapping[str, object], overrides: Iterable[str] = ()) -> TengriConfig:
        """A configuration from nested mappings of the shape of the TOML file.

        Parameters
        ----------
        document : mapping
            Sections and keys; durations and frequencies as text, as in a file.
        overrides : iterable of str
            ``"section.key=value"``, applied in order.

        Raises
        ------
        ConfigurationError
            Names every key that breaks a rule.
        """
        return _build(_plain(document), overrides, Origin())

    @property
    def sha256(self) -> str:
        """Hash of the effective values in canonical form: comments, order and spelling of the file do not matter."""
        return hashlib.sha256(msgspec.json.encode(self.to_dict(), order="deterministic")).hexdigest()

    @property
    def pending(self) -> tuple[tuple[str, str], ...]:
        """Keys that are set but that this version does not act on, each with what happens instead."""
        return tuple(_pending(_sections(), self, ()))

    def to_dict(self) -> dict[str, Any]:
        """Effective values as plain dicts, lists, strings, numbers and booleans; None is left out.

        ``TengriConfig.from_dict(config.to_dict())`` gives the same values.
        """
        return cast("dict[str, Any]", _encode(_sections(), self))

    def to_toml(self) -> str:
        """Effective values as a TOML text that loads again to the same values."""
        return to_toml(self.to_dict())

    def error(self, key: str, text: str) -> ConfigurationError:
        """An error about one key, to be raised: file, line and key, then `text` (the rule and the value).

        Parameters
        ----------
        key : str
            As in ``neural.models[0].config``.
        text : str
            Such as ``"must agree with the model's clock, was 1s"``.
        """
        path = _parse_path(key) or (key,)
        return ConfigurationError(f"{self.origin.where(path)}{join_path(path)} {text}")

    def resolve(self, path: str, key: str) -> Path:
        """An existing file or folder that a key names.

        Looked for in the configuration's folder, then the working directory, then the installed model zoo (there also
        without a leading ``models/``). ``${NAME}`` and ``${NAME:-default}`` stand for environment variables.

        Parameters
        ----------
        path : str
            The value of the key.
        key : str
            The key itself, for the error message.

        Raises
        ------
        ConfigurationError
            If it is nowhere; the message lists every place.
        """
        expanded = self._expand(path, key)
        tried = _candidates(expanded, self.origin.folder)
        for candidate in tried:
            try:
                if candidate.exists():
                    return candidate.absolute()
            except (OSError, ValueError):
                continue  # a name too long, or with a NUL: no such file, and the error below says so
        places = ", ".join(str(candidate) for candidate in tried)
        raise self.error(key, f"must name an existing file, was {shown(expanded)}; looked for {places}")

    def place(self, path: str, key: str) -> Path:
        """The absolute path of a file that need not exist yet, relative to the configuration's folder."""
        target = Path(self._expand(path, key)).expanduser()
        return (Path(self.origin.folder or ".") / target).absolute()

    def files(self) -> dict[str, Path]:
        """Every file that the configuration names, found.

        Returns
        -------
        dict of str to Path
            Key (such as ``backtest.quotes[0]``) to absolute path.

        Raises
        ------
        ConfigurationError
            If any is missing; all that are missing are told at once.
        """
        named = {f"neural.models[{i}].config": model.config for i, model in enumerate(self.neural.models)}
        if self.risk.scenarios.path is not None:
            named["risk.scenarios.path"] = self.risk.scenarios.path
        named |= {f"risk.stress.files[{i}]": path for i, path in enumerate(self.risk.stress.files)}
        if self.backtest is not None:
            for kind in ("quotes", "trades", "depth"):
                for i, path in enumerate(getattr(self.backtest, kind)):
                    named[f"backtest.{kind}[{i}]"] = path
        found: dict[str, Path] = {}
        missing: list[str] = []
        for key, path in named.items():
            try:
                found[key] = self.resolve(path, key)
            except ConfigurationError as error:
                missing.append(str(error))
        if missing:
            raise ConfigurationError("\n".join(missing))
        return found

    def _expand(self, path: str, key: str) -> str:
        def value(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            found = os.environ.get(name) or default
            if found is None:
                raise self.error(key, f"needs the environment variable {name}, which is not set, was {shown(path)}")
            return found

        return _VARIABLE.sub(value, path)


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> TengriConfig:
    """Read and check a configuration file.

    Files that it names are not opened here; `TengriConfig.files` and whoever loads them do that.

    Parameters
    ----------
    path : path-like
        A TOML file in UTF-8.
    overrides : iterable of str
        ``"section.key=value"`` as given with ``--set``, applied in order after the file. The value is read as TOML,
        and as a bare string when it is not TOML.

    Returns
    -------
    TengriConfig

    Raises
    ------
    ConfigurationError
        If the file cannot be read, is not TOML, or breaks a rule; the message names file, line, key, rule and value of
        every problem, and the nearest valid key of an unknown one.
    """
    file = Path(path)
    try:
        # Opened without blocking, so that a named pipe in place of the file cannot hold us up.
        with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"{file}: the configuration file cannot be read: {reason}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{file}: a configuration file must be at most {MAX_FILE_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{file}:{line}: the file must be UTF-8 text, found byte 0x{raw[error.start]:02x}"
        ) from None
    return parse_config(text, file, overrides)


def parse_config(text: str, file: str | os.PathLike[str] | None = None, overrides: Iterable[str] = ()) -> TengriConfig:
    """Check the text of a configuration; `file` names it in messages and gives the folder of its relative paths.

    Raises
    ------
    ConfigurationError
        As `load_config`.
    """
    name = None if file is None else str(file)
    folder = None if file is None else str(Path(file).absolute().parent)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    document = _parse_toml(text, f"{name}:" if name else "line ")
    return _build(document, overrides, Origin(file=name, folder=folder, lines=key_lines(text)))


def zoo_folder() -> Path:
    """The folder of the models that are installed with the package."""
    return Path(__file__).absolute().parent.parent / "models"


# ---------------------------------------------------------------- reading


def _parse_toml(text: str, prefix: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=_parse_float)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        if at:
            what = message[: at.start()]
            raise ConfigurationError(f"{prefix}{at[1]}: not valid TOML at column {at[2]}: {what}") from None
        last = text.count("\n") + 1
        raise ConfigurationError(f"{prefix}{last}: not valid TOML: {message}") from None
    except RecursionError:
        raise ConfigurationError(f"{prefix}1: tables and lists are nested too deeply") from None
    except ValueError as error:  # a number with thousands of digits, or a date that does not exist
        raise ConfigurationError(f"{prefix}1: a value cannot be read: {shortened(str(error))}") from None


def _parse_float(text: str) -> Decimal:
    """Exact, so that a size such as 0.1 is 0.1."""
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal holds
        return Decimal("nan")


def _plain(value: object) -> Any:
    """Mappings and sequences of any kind as dicts and lists, for a document that was made by a program."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _parse_path(text: str) -> KeyPath | None:
    path: list[str | int] = []
    for part in text.strip().split("."):
        match = _STEP.fullmatch(part)
        if match is None:
            return None
        path.append(match[1])
        path += [int(index) for index in re.findall(r"\d+", match[2])]
    return tuple(path)


def _apply_overrides(document: dict[str, Any], overrides: Iterable[str]) -> dict[KeyPath, str]:
    """Put each override into the document; returns their paths and texts."""
    applied: dict[KeyPath, str] = {}
    for item in overrides:
        name, equals, text = item.partition("=")
        path = _parse_path(name)
        if not equals or path is None:
            raise ConfigurationError(f"--set {shortened(item)}: must have the form section.key=value")
        text = text.strip()
        value: object = text
        # More than one key would mean that the text has left its own value.
        try:
            parsed = tomllib.loads(f"value = {text}", parse_float=_parse_float)
            if set(parsed) == {"value"}:
                value = parsed["value"]
        except (ValueError, RecursionError):
            value = text
        path = _put(document, path, Override(text, value), item)
        applied[path] = text
    return applied


def _put(document: dict[str, Any], path: KeyPath, value: Override, item: str) -> KeyPath:
    """Set one value; returns its path, in which the numbers that step into lists are integers."""
    done: list[str | int] = []
    here: Any = document
    for depth, step in enumerate(path):
        if isinstance(here, Override):
            here = here.value
        last = depth == len(path) - 1
        if isinstance(here, list):
            if not (isinstance(step, int) or step.isdecimal()) or int(step) >= len(here):
                at = join_path(tuple(done))
                raise ConfigurationError(
                    f"--set {shortened(item)}: {at} must be given an index below {len(here)}, was {shown(step)}"
                )
            step = int(step)
        elif not isinstance(here, dict) or isinstance(step, int):
            raise ConfigurationError(
                f"--set {shortened(item)}: {join_path(tuple(done)) or 'the file'} is not a list or table"
            )
        done.append(step)
        if last:
            here[step] = value
        else:
            if isinstance(here, dict):
                here.setdefault(step, {})
            here = here[step]
    return tuple(done)


def _build(document: dict[str, Any], overrides: Iterable[str], origin: Origin) -> TengriConfig:
    applied = _apply_overrides(document, [overrides] if isinstance(overrides, str) else overrides)
    origin = Origin(origin.file, origin.folder, origin.lines, applied)
    checker = Checker(TengriConfig)
    config = checker.struct(_sections(), document, ())
    if not checker.problems:
        config = msgspec.structs.replace(config, origin=origin)
        checker.problems += _rules(config)
    if checker.problems:
        raise ConfigurationError(_tell(checker.problems, origin))
    return cast(TengriConfig, config)


def _tell(problems: Sequence[tuple[KeyPath, str]], origin: Origin) -> str:
    ordered = sorted(problems, key=lambda problem: origin.line(problem[0]) or 0)
    lines = [f"{origin.where(path)}{join_path(path)} {text}".strip() for path, text in ordered]
    if len(lines) == 1:
        return lines[0]
    shown = lines[:MAX_PROBLEMS_SHOWN]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    return f"{len(lines)} problems in the configuration:\n  " + "\n  ".join(shown)


# ---------------------------------------------------------------- checking


@cache
def _sections() -> inspect.StructType:
    kind = inspect.type_info(TengriConfig)
    assert isinstance(kind, inspect.StructType)
    return kind


def _risk_rules(config: TengriConfig) -> Iterator[tuple[KeyPath, str]]:
    """What the gate itself says about ``[risk]``, told at its key."""
    from tengri_fast.runtime.risk_settings import limits_of, stressed

    risk = config.risk
    try:
        if risk.limits:
            limits_of(risk)
    except ConfigurationError as error:
        found = re.match(r"`([a-z_]+)(?:\.([a-z_]+))?`", str(error))
        key: KeyPath = ("risk",) if found is None else ("risk", *(part for part in found.groups() if part))
        yield key, str(error)[0 if found is None else found.end() :].strip()
    if risk.limits and risk.neural_stress_testing and stressed(risk) is None:
        yield ("risk", "neural_stress_testing"), "needs max_stress_loss or max_portfolio_var, has neither, was true"
    names = [each.name for each in risk.bucket]
    for i, each in enumerate(risk.bucket):
        if each.name in names[:i]:
            yield ("risk", "bucket", i, "name"), f"must be there once, was {shown(each.name)} again"
        for k, name in enumerate(each.instruments):
            if any(name in other.instruments for other in risk.bucket[:i]) or name in each.instruments[:k]:
                yield ("risk", "bucket", i, "instruments", k), f"must be in one bucket, was {shown(name)} again"


def _feature_rules(config: TengriConfig) -> Iterator[tuple[KeyPath, str]]:
    """Words of ``[neural.features]`` that mean no feature, or one of another list."""
    from tengri_fast.features.names import SECTIONS, configured_features

    for section in SECTIONS:
        for i, word in enumerate(getattr(config.neural.features, section)):
            try:
                configured_features(**{section: (word,)})
            except FeatureExtractionError as error:
                told = str(error).removeprefix(f"`{section}[0]`").removeprefix(":").strip()
                yield ("neural", "features", section, i), told


def _rules(config: TengriConfig) -> Iterator[tuple[KeyPath, str]]:
    """Rules that join several keys."""
    scenarios, backtest, neural = config.risk.scenarios, config.backtest, config.neural
    if scenarios.source == "file" and scenarios.path is None:
        yield ("risk", "scenarios", "path"), 'must be given when risk.scenarios.source is "file", was missing'
    for name, other in (("path", "file"), ("keep", "rolling")):
        given = getattr(scenarios, name)
        if scenarios.source != other and given is not None:
            yield (
                ("risk", "scenarios", name),
                f'needs risk.scenarios.source = "{other}", was {shown(given)} with "{scenarios.source}"',
            )
    var = config.risk.var
    fewest = math.ceil(1.0 / (1.0 - var.level) - 1e-6)
    if var.scenarios < fewest:
        rule = f"must be >= {fewest} for a level of {var.level}, so that the tail holds one"
        yield ("risk", "var", "scenarios"), f"{rule}, was {var.scenarios}"
    if var.decay is not None and var.method not in ("age_weighted", "filtered"):
        yield ("risk", "var", "decay"), f'needs the method "age_weighted" or "filtered", was given with "{var.method}"'
    yield from _feature_rules(config)
    yield from _risk_rules(config)
    first: dict[str, int] = {}
    for i, model in enumerate(neural.models):
        if first.setdefault(model.config, i) != i:
            path: KeyPath = ("neural", "models", i, "config")
            yield path, f"must differ from neural.models[{first[model.config]}].config, was {shown(model.config)}"
    if neural.ensemble is not None and neural.ensemble.weights:
        weights = neural.ensemble.weights
        path = ("neural", "ensemble", "weights")
        if len(weights) != len(neural.models):
            yield path, f"must have one weight for each of the {len(neural.models)} models, has {len(weights)}"
        elif not sum(weights) > 0:
            yield path, f"must not all be zero, was {shown(list(weights))}"
    if not config.risk.limits and (backtest is not None or config.data_sources.enabled):
        why = "[backtest]" if backtest is not None else "[data_sources]"
        yield (
            ("risk",),
            f"must set a limit, such as max_order_notional, max_position, price_collar_bps or max_portfolio_var, "
            f"when {why} is configured, sets none",
        )
    if backtest is not None:
        if config.strategy.trade_size is None:
            yield ("strategy", "trade_size"), "must be given when [backtest] is configured, was missing"
        if not backtest.quotes and not backtest.depth:
            yield (
                ("backtest", "quotes"),
                "must name at least one file of quotes (or backtest.depth one of depth), has none",
            )
        for kind in ("quotes", "trades", "depth"):
            paths: tuple[str, ...] = getattr(backtest, kind)
            for i, text in enumerate(paths):
                if text in paths[:i]:
                    yield ("backtest", kind, i), f"must not repeat a file, was {shown(text)}"


# ---------------------------------------------------------------- writing


def _encode(kind: inspect.Type, value: Any) -> Any:
    kind, extra, _ = unwrap(kind)
    if value is None:
        return None
    if extra.get("kind") == "duration":
        return format_duration(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Frequency | Money):
        return str(value)
    if isinstance(kind, inspect.StructType):
        items = ((f.name, f.type) for f in kind.fields if not unwrap(f.type)[1].get("hidden"))
        encoded = {name: _encode(inner, getattr(value, name)) for name, inner in items}
        return {name: item for name, item in encoded.items() if item is not None}
    if isinstance(kind, inspect.VarTupleType):
        return [_encode(kind.item_type, item) for item in value]
    return value


def _pending(kind: inspect.StructType, value: Any, path: KeyPath) -> Iterator[tuple[str, str]]:
    for field in kind.fields:
        inner, extra, _ = unwrap(field.type)
        item = getattr(value, field.name)
        if extra.get("hidden") or item is None:
            continue
        if "pending" in extra:
            if item != field.default:
                yield join_path((*path, field.name)), extra["pending"]
        elif isinstance(inner, inspect.StructType) and inner.cls not in (Frequency, Money):
            yield from _pending(inner, item, (*path, field.name))


def _candidates(path: str, folder: str | None) -> list[Path]:
    try:
        target = Path(path).expanduser()
    except RuntimeError:  # ~name of a user that does not exist
        target = Path(path)
    if target.is_absolute():
        return [target]
    inside = target.relative_to("models") if target.parts[:1] == ("models",) else target
    places = [Path(folder) / target] if folder is not None else []
    places += [Path.cwd() / target, zoo_folder() / inside]
    return list(dict.fromkeys(places))
