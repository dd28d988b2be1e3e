"""What ``tengri features`` and ``tengri check-lookahead`` share: options, and how CONFIG becomes a list of features."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tengri_fast.features.sources_config import FeatureConfig, OutsideInput

__all__ = ["config_of", "source_options"]

PATH = click.Path(path_type=Path)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is computed from which files."""
    for option in reversed((
        click.argument("config", required=False, type=PATH),
        click.option("--data", multiple=True, type=PATH, help="File or folder of quotes, trades, depth or bars. Files "
                     "of one name (NAME.quotes.parquet, NAME.trades.parquet) are one session. May be repeated."),
        click.option("--feature", "features", multiple=True, metavar="TEXT", help="A feature instead of CONFIG: "
                     "'RSI(21) @ 1m' or 'order_flow_imbalance(window=\"1s\")'. May be repeated."),
        click.option("--clock", type=click.Choice(["quote", "trade", "depth", "bar"]),
                     help="Stream that makes a row with each event [default: that of CONFIG, or quote]."),
        click.option("--leg", "legs", multiple=True, metavar="NAME=FILE", help="Quotes of another instrument."),
        click.option("--external", "outside", multiple=True, metavar="NAME=FILE", help="Observations of a source: NAME "
                     "is PolymarketOdds, NewsNLP or MacroEconomic, or any name for a table ts_ns, value_0, ... "),
        click.option("--user", multiple=True, type=PATH, metavar="FILE.py", help="A Python file of yours: it registers "
                     "features or makes observations. It is run, with your rights: give only files that you trust."),
        click.option("--batch-rows", type=int, default=131_072, show_default=True,
                     help="Rows of a stream in memory at a time."),
        click.option("--progress/--no-progress", default=None, help="Show a bar [default: on a terminal]."),
    )):  # fmt: skip
        command = option(command)
    return command


def _pairs(option: str, given: Sequence[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise click.BadParameter(f"must look like NAME=FILE, was {text!r}", param_hint=f"'{option}'")
        if not Path(path).is_file():
            raise click.BadParameter(f"must name an existing file, was {path!r}", param_hint=f"'{option}'")
        found.setdefault(name, []).append(Path(path))
    return found


def config_of(config: Path | None, given: dict[str, Any]) -> FeatureConfig:
    """The features, clock, normalisation and outside files that a call names.

    Parameters
    ----------
    config : Path, optional
        A model.toml (or its folder, or a name of the zoo), a TengriConfig file, or a TOML of features.
    given : dict
        The options.

    Raises
    ------
    ConfigurationError
        If there are no features, or a file breaks a rule.
    """
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.features.external import SOURCES
    from tengri_fast.features.sources_config import OutsideInput, parse_feature_config
    from tengri_fast.features.user_files import load_user_file, observation_names

    for path in given["user"]:
        load_user_file(path)
    if (config is None) == (not given["features"]):
        raise ConfigurationError("`config` must be given, or --feature, and not both")
    found = (parse_feature_config({"features": list(given["features"])}, Path()) if config is None
             else _read(config))  # fmt: skip
    legs = {name: tuple(paths) for name, paths in _pairs("--leg", given["legs"]).items()}
    outside: dict[str, OutsideInput] = {}
    for name, paths in _pairs("--external", given["outside"]).items():
        if len(paths) > 1:
            raise click.BadParameter(f"must be given once for {name!r}", param_hint="'--external'")
        outside[name] = OutsideInput(name if name in SOURCES else "values", paths[0])
    return replace(found, clock=given["clock"] or found.clock, legs={**found.legs, **legs},
                   external={**found.external, **outside}, derived=observation_names())  # fmt: skip


def _read(path: Path) -> FeatureConfig:
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.features.sources_config import parse_feature_config

    place = path if path.exists() else _in_zoo(path)
    file = place / "model.toml" if place.is_dir() else place
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: must be TOML: {error}") from None
    if "inputs" in document:
        return _of_model(file)
    if "neural" in document or "strategy" in document:
        return _of_runtime(file)
    return parse_feature_config(document, file.parent, file.name)


def _in_zoo(path: Path) -> Path:
    from tengri_fast.errors import ConfigurationError, ModelLoadingError
    from tengri_fast.models import model_path

    try:
        return Path(model_path(str(path)))
    except (ConfigurationError, ModelLoadingError, OSError, ValueError, KeyError):
        raise ConfigurationError(f"`config` must be a file, or a model of the zoo, was {path}") from None


def _of_model(path: Path) -> FeatureConfig:
    from tengri_fast.features import parse_spec
    from tengri_fast.features.sources_config import FeatureConfig
    from tengri_fast.runtime.model_spec import load_model_spec

    spec = load_model_spec(path)
    norm = spec.normalisation
    specs = tuple(parse_spec(text) for text in spec.inputs.features)
    return FeatureConfig(specs, spec.inputs.clock, (norm.mean, norm.scale, norm.clip),
                         origin=f"{spec.id}/{path.name}")  # fmt: skip


def _of_runtime(path: Path) -> FeatureConfig:
    """The lists of ``[neural.features]``; without them, the inputs of the models."""
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.features.names import configured_features
    from tengri_fast.features.sources_config import FeatureConfig
    from tengri_fast.runtime.config import load_config

    config = load_config(path)
    lists = config.neural.features
    named = configured_features(lists.technical_indicators, lists.market_microstructure, lists.external_data)
    if named:
        return FeatureConfig(named, origin=path.name)
    models = [_of_model(config.resolve(entry.config, f"neural.models[{number}].config"))
              for number, entry in enumerate(config.neural.models)]  # fmt: skip
    clocks = sorted({model.clock for model in models})
    if len(clocks) > 1:
        raise ConfigurationError(f"{path}: `neural.models` must have one clock, had {', '.join(clocks)}: give one "
                                 "model.toml instead")  # fmt: skip
    if len(models) == 1:
        return replace(models[0], origin=path.name)
    specs = tuple(dict.fromkeys(spec for model in models for spec in model.features))
    return FeatureConfig(specs, clocks[0], origin=path.name)
