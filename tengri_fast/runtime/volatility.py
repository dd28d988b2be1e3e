"""``volatility.toml``: a volatility network that ships, its proof, and sessions of it for the risk room.

Loading is all or nothing, as for the models that give signals: hash, sizes and golden outputs are checked before a
session is handed out.
"""

from __future__ import annotations

import hashlib
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np

from tengri_fast.errors import ModelLoadingError
from tengri_fast.risk.neural_volatility import FEATURES, NeuralVolatility

if TYPE_CHECKING:
    from tengri_fast.inference import Model

__all__ = ["VolatilityModel", "VolatilitySpec", "load_volatility"]


class VolatilityGolden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs ``x [T, 9]`` and answers ``y [T, 1]`` from the training framework, and how closely we must match."""

    path: str
    tolerance: Annotated[float, msgspec.Meta(gt=0)] = 1e-5


class VolatilitySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a ``volatility.toml``."""

    id: str
    type: Literal["GRU", "LSTM", "MLP"]
    onnx: str
    sha256: str
    features: tuple[str, ...]
    period: str
    output: Literal["log variance over anchor"]
    golden: VolatilityGolden
    trained_until: str
    licence: str = ""
    description: str = ""
    data_sha256: dict[str, str] = {}


class VolatilityModel:
    """A checked network; :meth:`session` gives one :class:`NeuralVolatility` per instrument.

    Attributes
    ----------
    spec : VolatilitySpec
    model : Model
        In the C engine; shared by all sessions.
    golden_error : float
        Largest absolute difference from the golden answers.
    path : Path
        The ``volatility.toml``.
    """

    __slots__ = ("golden_error", "model", "path", "spec")

    def __init__(self, spec: VolatilitySpec, model: Model, golden_error: float, path: Path) -> None:
        self.spec = spec
        self.model = model
        self.golden_error = golden_error
        self.path = path

    def __repr__(self) -> str:
        return f"VolatilityModel({self.spec.id!r}, {self.model.nbytes} bytes)"

    def session(self) -> NeuralVolatility:
        """A stream from its beginning, for one instrument."""
        return NeuralVolatility(self.model.session(), self.spec.id)


def _fail(path: Path, text: str) -> ModelLoadingError:
    return ModelLoadingError(f"{path}: {text}")


def load_volatility(name: str | Path = "volatility_gru") -> VolatilityModel:
    """Load a volatility network and prove that it answers as it did when it was trained.

    Parameters
    ----------
    name : str or Path
        A ``volatility.toml``, its folder, or the name of a folder of the installed zoo.

    Raises
    ------
    ModelLoadingError
        When a file is missing, damaged or changed, the features or sizes are not those of this version, or the golden
        answers are missed.
    """
    from tengri_fast.inference import Model
    from tengri_fast.runtime.config import zoo_folder

    path = Path(name)
    if not path.exists() and len(path.parts) == 1:
        path = zoo_folder() / path
    if path.is_dir():
        path = path / "volatility.toml"
    try:
        spec = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), VolatilitySpec, strict=True)
        data = (path.parent / spec.onnx).read_bytes()
    except FileNotFoundError as error:
        raise _fail(path, f"no such file: {error.filename}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _fail(path, f"cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise _fail(path, str(error)) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != spec.sha256:
        raise _fail(path, f"`sha256` must be that of {spec.onnx} ({digest}), was {spec.sha256}")
    if spec.features != FEATURES:
        raise _fail(path, f"`features` must be {list(FEATURES)}, was {list(spec.features)}")
    try:
        model = Model.from_onnx(data)
    except ModelLoadingError as error:
        raise _fail(path, f"{spec.onnx}: {error}") from error
    if (model.input_size, model.output_size) != (len(FEATURES), 1):
        raise _fail(path, f"{spec.onnx} must have {len(FEATURES)} inputs and 1 output, had {model.input_size} and "
                          f"{model.output_size}")  # fmt: skip
    if spec.type.lower() not in {layer.kind for layer in model.layers} and spec.type != "MLP":
        raise _fail(path, f"`type` must be what {spec.onnx} holds, was {spec.type!r}")
    try:
        with np.load(path.parent / spec.golden.path, allow_pickle=False) as stored:
            x = np.ascontiguousarray(stored["x"], dtype=np.float32)
            y = np.ascontiguousarray(stored["y"], dtype=np.float64)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _fail(path, f"`golden.path` {spec.golden.path!r} must hold arrays x and y: {error}") from None
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != len(FEATURES) or y.shape != (len(x), 1):
        raise _fail(path, f"`golden.path` must hold x [T, {len(FEATURES)}] and y [T, 1], held {x.shape} and {y.shape}")
    gap = float(np.abs(model.run_window(x) - y).max())
    if not gap <= spec.golden.tolerance:
        raise _fail(path, f"golden answers must be met within {spec.golden.tolerance:g}, differ by {gap:g}")
    return VolatilityModel(spec, model, gap, path)
