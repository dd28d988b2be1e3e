"""``model.toml``: what a model is, what it eats, what its outputs mean, and how to know that it still is itself.

Loading is all or nothing. The file's own hash, the input and output sizes, the type and the golden outputs are checked
before a model is handed out, so that a wrong or damaged model never sees a tick.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np

from tengri_fast.errors import ConfigurationError, FeatureExtractionError, ModelLoadingError

if TYPE_CHECKING:
    from tengri_fast.features import FeaturePlan
    from tengri_fast.inference import Model

__all__ = ["ModelBundle", "ModelSpec", "load_bundle", "load_model_spec"]

TYPES = {"LSTM", "GRU", "CNN", "Transformer", "MLP", "DeepLOB", "Custom"}
ALIASES = {"TCN": "CNN", "Conv1d": "CNN"}
# What an artefact of each type holds: at least one layer of the first kinds, none of the second.
HOLDS = {
    "LSTM": ({"lstm"}, {"attention", "conv"}),
    "GRU": ({"gru"}, {"attention", "conv"}),
    "CNN": ({"conv"}, {"attention", "lstm", "gru"}),
    "Transformer": ({"attention"}, set()),
    "MLP": ({"dense"}, {"lstm", "gru", "conv", "attention"}),
    "DeepLOB": ({"conv", "lstm"}, {"attention"}),
}
CLASSES = ("down", "flat", "up")


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ordered feature specs, the clock that steps the model, and the type of the row."""

    features: tuple[str, ...]
    clock: Literal["quote", "trade", "bar", "depth"] = "quote"
    dtype: Literal["float32"] = "float32"


class Normalisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frozen with the model: ``clip((x - mean) / scale, -clip, clip)`` per feature; ``clip = 0`` means none."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    clip: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Outputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the numbers that leave the model mean.

    ``logits`` and ``probabilities`` have three classes in the order down, flat, up, and ``class_returns_bps`` gives
    the mean mid return of each class in training. ``return`` is one number, the expected mid return in basis points,
    with ``sigma_bps`` the standard deviation of its error. Of a model with several outputs, ``name`` says which one is
    meant; of one with several horizons side by side, ``group`` says which group of values, from 0.
    """

    kind: Literal["logits", "probabilities", "return"]
    horizon: str
    classes: tuple[str, ...] = CLASSES
    class_returns_bps: tuple[float, ...] = (0.0, 0.0, 0.0)
    sigma_bps: float = 1.0
    name: str = ""
    group: Annotated[int, msgspec.Meta(ge=0)] | None = None

    @property
    def horizon_unit(self) -> str:
        """``"ns"`` for a length of time, ``"events"`` for a count of events."""
        return "events" if self.horizon.endswith("events") else "ns"

    @property
    def horizon_value(self) -> int:
        """The horizon in its unit."""
        from tengri_fast.runtime.durations import parse_duration

        if self.horizon_unit == "events":
            return int(self.horizon.removesuffix("events"))
        return parse_duration(self.horizon)


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Temperature scaling of logits (Guo et al. 2017): ``softmax(z / temperature)``."""

    method: Literal["none", "temperature"] = "none"
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs ``x [T, F]`` and outputs ``y [T, O]`` from the training framework, and how closely we must match.

    All outputs of the model, side by side. For a windowed model, ``y[t]`` looks back on the last ``window`` rows.
    """

    path: str
    tolerance: Annotated[float, msgspec.Meta(gt=0)] = 1e-5


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a ``model.toml``."""

    id: str
    type: str
    onnx: str
    sha256: str
    inputs: Inputs
    normalisation: Normalisation
    outputs: Outputs
    golden: Golden
    calibration: Calibration = Calibration()
    state: Literal["stateful", "windowed"] = "stateful"
    window: Annotated[int, msgspec.Meta(ge=0)] = 0
    reset_on: tuple[str, ...] = ()
    precision: Literal["fp32", "fp16", "bf16", "int8", "int8a16"] = "fp32"
    deadline_us: Annotated[float, msgspec.Meta(gt=0)] = 1000.0
    backup: str = ""
    licence: str = ""
    data_sha256: dict[str, str] = {}
    description: str = ""

    @property
    def reset_on_day(self) -> bool:
        """Whether state is dropped when the UTC day changes."""
        return "day" in self.reset_on

    @property
    def gap_ns(self) -> int:
        """Length of a silence after which state is dropped, in nanoseconds; 0 when never."""
        from tengri_fast.runtime.durations import parse_duration

        for word in self.reset_on:
            if word.startswith("gap:"):
                return parse_duration(word.removeprefix("gap:"))
        return 0


class ModelBundle:
    """A model that passed its checks, with the feature plan that feeds it.

    Attributes
    ----------
    spec : ModelSpec
    model : Model
        The native model.
    plan : FeaturePlan
        Compiled with the model's own normalisation.
    model_sha256 : str
        Hash of the ONNX (or compiled) file.
    golden_error : float
        Largest absolute difference from the golden outputs.
    column : int
        First value of the answer row that the specification means.
    path : Path
        The ``model.toml``.
    """

    __slots__ = ("column", "golden_error", "model", "model_sha256", "path", "plan", "spec")

    def __init__(
        self,
        spec: ModelSpec,
        model: Model,
        plan: FeaturePlan,
        model_sha256: str,
        golden_error: float,
        path: Path,
        column: int = 0,
    ) -> None:
        self.spec = spec
        self.model = model
        self.plan = plan
        self.model_sha256 = model_sha256
        self.golden_error = golden_error
        self.path = path
        self.column = column

    def __repr__(self) -> str:
        return f"ModelBundle({self.spec.id!r}, {self.plan.width} features, {self.model.nbytes} bytes)"


def _fail(path: Path, text: str) -> ModelLoadingError:
    return ModelLoadingError(f"{path}: {text}")


def _check(spec: ModelSpec, path: Path) -> None:
    kind = ALIASES.get(spec.type, spec.type)
    if kind not in TYPES:
        raise _fail(path, f"`type` must be one of {', '.join(sorted(TYPES | set(ALIASES)))}, was {spec.type!r}")
    if spec.state == "windowed" and spec.window < 1:
        raise _fail(path, f'`window` must be >= 1 where `state` is "windowed", was {spec.window}')
    if spec.state == "stateful" and spec.window > 0:
        raise _fail(path, f'`window` must be 0 unless `state` is "windowed", was {spec.window}')
    width = len(spec.inputs.features)
    if width == 0:
        raise _fail(path, "`inputs.features` must name at least one feature, was empty")
    for name, values in (("mean", spec.normalisation.mean), ("scale", spec.normalisation.scale)):
        if len(values) != width:
            raise _fail(path, f"`normalisation.{name}` must have {width} values, had {len(values)}")
        if not all(math.isfinite(v) for v in values):
            raise _fail(path, f"`normalisation.{name}` must be finite, was {list(values)}")
    if not all(v > 0 for v in spec.normalisation.scale):
        raise _fail(path, f"`normalisation.scale` must be > 0, was {list(spec.normalisation.scale)}")
    for name, value in (("golden.tolerance", spec.golden.tolerance), ("calibration.temperature",
                        spec.calibration.temperature)):  # fmt: skip
        if not math.isfinite(value):
            raise _fail(path, f"`{name}` must be finite, was {value}")
    out = spec.outputs
    if out.kind == "return":
        if not (math.isfinite(out.sigma_bps) and out.sigma_bps > 0):
            raise _fail(path, f"`outputs.sigma_bps` must be a finite number > 0, was {out.sigma_bps}")
    else:
        if out.classes != CLASSES:
            raise _fail(path, f"`outputs.classes` must be {list(CLASSES)}, was {list(out.classes)}")
        if len(out.class_returns_bps) != 3 or not all(math.isfinite(v) for v in out.class_returns_bps):
            raise _fail(
                path, f"`outputs.class_returns_bps` must be 3 finite numbers, was {list(out.class_returns_bps)}"
            )
    try:
        if out.horizon_value <= 0:
            raise ValueError
    except (ValueError, ConfigurationError):
        raise _fail(path, f'`outputs.horizon` must be like "1s" or "10 events", was {out.horizon!r}') from None
    for word in spec.reset_on:
        if word != "day" and not word.startswith("gap:"):
            raise _fail(path, f'`reset_on` takes "day" and "gap:DURATION", was {word!r}')
    try:
        _ = spec.gap_ns
    except ConfigurationError as error:
        raise _fail(path, f"`reset_on`: {error}") from None


def load_model_spec(path: str | Path) -> ModelSpec:
    """Reads and checks a ``model.toml``, without touching the weights.

    Parameters
    ----------
    path : str or Path
        The TOML file, or the folder that holds a ``model.toml``.

    Raises
    ------
    ModelLoadingError
        Names the file, the key, its rule and its value.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.toml"
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _fail(path, "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _fail(path, f"cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise _fail(path, f"is not TOML: {error}") from None
    try:
        spec = msgspec.convert(table, ModelSpec, strict=True)
    except msgspec.ValidationError as error:
        raise _fail(path, str(error)) from None
    _check(spec, path)
    return spec


def _read_golden(spec: ModelSpec, path: Path, width: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    file = path.parent / spec.golden.path
    try:
        with np.load(file, allow_pickle=False) as stored:
            x = np.ascontiguousarray(stored["x"], dtype=np.float32)
            y = np.ascontiguousarray(stored["y"], dtype=np.float64)
    except FileNotFoundError:
        raise _fail(path, f"`golden.path` must exist, was {spec.golden.path!r}") from None
    except (OSError, KeyError, ValueError, EOFError, TypeError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise _fail(path, f"`golden.path` {spec.golden.path!r} must hold arrays x and y: {error}") from None
    if x.ndim != 2 or x.shape[1] != width or y.shape != (x.shape[0], outputs) or x.shape[0] == 0:
        raise _fail(path, f"`golden.path` must hold x [T, {width}] and y [T, {outputs}], held {x.shape} and {y.shape}")
    return x, y


def _formats(model: Model) -> set[str]:
    """The number formats of the layers that have weights."""
    from tengri_fast.inference.network import WEIGHTED

    if model.network is not None:
        pairs = [(node.layer.kind, node.format) for node in model.network.nodes]
    else:
        pairs = [(layer.kind, getattr(layer, "format", "fp32")) for layer in model.layers]
    return {format_ for kind, format_ in pairs if kind in WEIGHTED}


def _read_model(spec: ModelSpec, path: Path, data: bytes) -> Model:
    """The model in the precision that was asked for; 16-bit floats are made from a float32 artefact here."""
    from tengri_fast.inference import Model

    try:
        if spec.onnx.endswith(".tgp"):
            model = Model.from_compiled(data)
        else:
            window = spec.window if spec.state == "windowed" else None  # for a graph over all rows of an open axis
            model = Model.from_onnx(data, window=window)
            if model.format == "fp32" and spec.precision in ("fp16", "bf16"):
                model = Model.from_onnx(data, format=spec.precision, window=window)
    except ModelLoadingError as error:
        raise _fail(path, f"{spec.onnx}: {error}") from error
    # A quantised model may keep a layer in float32: its precision is that of the others.
    found = _formats(model)
    if spec.precision not in (found - {"fp32"} or {"fp32"}):
        listed = ", ".join(sorted(found)) or "fp32"
        raise _fail(path, f"`precision` must be what {spec.onnx} holds ({listed}), was {spec.precision!r}")
    return model


def _column(spec: ModelSpec, path: Path, model: Model) -> int:
    """First value of the answer row that the specification means."""
    out = spec.outputs
    wanted = 1 if out.kind == "return" else 3
    start, found, named = 0, model.output_size, False
    if out.name:
        names = [name for name, _ in model.outputs]
        if out.name not in names:
            raise _fail(path, f"`outputs.name` must be one of {', '.join(names)}, was {out.name!r}")
        index = names.index(out.name)
        start, found = sum(width for _, width in model.outputs[:index]), model.outputs[index][1]
        named = True
    elif len(model.outputs) > 1:
        listed = ", ".join(name for name, _ in model.outputs)
        raise _fail(path, f"`outputs.name` must say which output of {spec.onnx} is meant ({listed}), was empty")
    if out.group is not None:
        groups = found // wanted
        if found % wanted or out.group >= groups:
            raise _fail(
                path, f"`outputs.group` must be below {groups} groups of {wanted} in {found} values, was {out.group}"
            )
        return start + out.group * wanted
    if found != wanted:
        where = f"output `{out.name}` of {spec.onnx}" if named else spec.onnx
        raise _fail(path, f"`outputs.kind` {out.kind!r} needs {wanted} outputs, {where} has {found}")
    return start


def _check_type(spec: ModelSpec, path: Path, model: Model) -> None:
    declared = ALIASES.get(spec.type, spec.type)
    if declared == "Custom" or not model.layers:
        return
    kinds = {layer.kind for layer in model.layers}
    fits = [name for name, (needed, foreign) in HOLDS.items() if needed <= kinds and not foreign & kinds]
    if declared not in fits:
        listed = f"{', '.join(fits) or 'Custom'}; layers {', '.join(sorted(kinds))}"
        raise _fail(path, f"`type` must be what {spec.onnx} holds ({listed}), was {spec.type!r}")


def _answers(spec: ModelSpec, model: Model, x: np.ndarray) -> np.ndarray:
    """What the model answers to rows x [T, F] in its own mode, in double."""
    if spec.state == "stateful":
        return model.run_window(x).astype(np.float64)
    session = model.windowed(spec.window)
    return np.array([session.step(row) for row in x], np.float64)


def load_bundle(path: str | Path) -> ModelBundle:
    """Loads a model with everything it needs and proves that it answers as it did when it was trained.

    Parameters
    ----------
    path : str or Path
        A ``model.toml`` or its folder. Files named inside resolve against that folder.

    Returns
    -------
    ModelBundle

    Raises
    ------
    ModelLoadingError
        When any file is missing, damaged or changed (SHA-256), a size does not fit, a feature is unknown or a raw
        level of a price, the declared type or precision is not what the artefact holds, or the golden outputs are
        missed. Nothing is half-loaded.
    """
    from tengri_fast.features import FeaturePlan, parse_spec

    path = Path(path)
    if path.is_dir():
        path = path / "model.toml"
    spec = load_model_spec(path)
    file = path.parent / spec.onnx
    try:
        data = file.read_bytes()
    except OSError:
        raise _fail(path, f"`onnx` must name a readable file, was {spec.onnx!r}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != spec.sha256:
        raise _fail(path, f"`sha256` must be that of {spec.onnx} ({digest}), was {spec.sha256}")
    model = _read_model(spec, path, data)
    width = len(spec.inputs.features)
    if model.input_size != width:
        raise _fail(path, f"`inputs.features` must have {model.input_size} entries for {spec.onnx}, had {width}")
    column = _column(spec, path, model)
    _check_type(spec, path, model)
    if spec.state == "stateful" and model.max_steps > 0:
        raise _fail(
            path,
            f'`state` must be "windowed" and `window` at most {model.max_steps}, as {spec.onnx} has absolute '
            'positions, was "stateful"',
        )
    if 0 < model.max_steps < spec.window:
        raise _fail(
            path, f"`window` must be at most {model.max_steps}, the positions of {spec.onnx}, was {spec.window}"
        )
    try:
        plan = FeaturePlan([parse_spec(text) for text in spec.inputs.features]).with_normalisation(
            np.array(spec.normalisation.mean), np.array(spec.normalisation.scale), spec.normalisation.clip
        )
    except FeatureExtractionError as error:
        raise _fail(path, f"`inputs.features`: {error}") from None
    for read in plan.specs:
        if read.is_price:
            # The rule of a difference of prices names its relative form; a level has the stage.
            way = f"write `{read} | to_mid`, basis points from the mid"
            raise _fail(
                path,
                "`inputs.features` must be free of raw prices, for which float32 has too few digits, had "
                f"`{read}`: {way if read.info.unit == 'price' else read.info.rule}",
            )
    if plan.width != width:
        raise _fail(path, f"`inputs.features` must give one column each, gave {plan.width} for {width}")
    x, y = _read_golden(spec, path, width, model.output_size)
    missed_by = float(np.max(np.abs(_answers(spec, model, x) - y)))
    if not missed_by <= spec.golden.tolerance:
        raise _fail(path, f"golden outputs must be met within {spec.golden.tolerance}, were missed by {missed_by}")
    return ModelBundle(spec, model, plan, digest, missed_by, path, column)
