"""Backends: who can run a model, who is missing and why, and the door through which others register.

A backend is a small object with a name, a probe and a loader. The native engine and ONNX Runtime live here; TensorRT
and CUDA register themselves from their own packages, through :func:`register_backend` or the entry point group
``tengri_fast.backends``, so this room never imports them.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, ModelLoadingError

__all__ = [
    "Backend",
    "BackendInfo",
    "InferenceModel",
    "InferenceSession",
    "available_backends",
    "get_backend",
    "load_model",
    "register_backend",
]

Source = str | os.PathLike[str] | bytes
FloatArray = npt.NDArray[np.float32]
ENTRY_POINTS = "tengri_fast.backends"
COMPILED = b"\x89TGP\r\n\x1a\n"
"""The first bytes of a compiled file."""


@runtime_checkable
class InferenceSession(Protocol):
    """Streaming state of one model for one instrument."""

    @property
    def input(self) -> FloatArray:
        """Writable row that the next finish reads."""

    @property
    def output(self) -> FloatArray:
        """The last answer."""

    def finish(self, x: npt.ArrayLike | None = None) -> FloatArray:
        """The part of a step that needs the new row."""

    def prepare(self) -> None:
        """The part of a step that does not need the next row."""

    def step(self, x: npt.ArrayLike | None = None) -> FloatArray:
        """Finish, then prepare; returns a copy of the output."""

    def reset(self) -> None:
        """Back to zero state."""

    def copy(self) -> InferenceSession:
        """An independent session in the same state."""


@runtime_checkable
class InferenceModel(Protocol):
    """A loaded model on some backend."""

    @property
    def backend(self) -> str:
        """Name of the backend."""

    @property
    def declined(self) -> str | None:
        """Why a preferred backend declined the model; None if none did."""

    @property
    def input_size(self) -> int:
        """Width of an input row."""

    @property
    def output_size(self) -> int:
        """Width of an output row."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the ONNX bytes."""

    def session(self) -> InferenceSession:
        """A new session in zero state."""

    def run_window(self, x: npt.ArrayLike) -> FloatArray:
        """Outputs over a window from zero state."""


@dataclass(frozen=True)
class BackendInfo:
    """One row of :func:`available_backends`."""

    name: str
    found: bool
    reason: str
    """Version or device when found; what is missing, and how to get it, when not."""


class Backend(Protocol):
    """What :func:`register_backend` takes."""

    @property
    def name(self) -> str:
        """Unique name."""

    def probe(self) -> BackendInfo:
        """Whether it can run here; must be quick and must not raise."""

    def load(self, source: Source, **options: Any) -> InferenceModel:
        """Load an ONNX file or its bytes; ModelLoadingError if it cannot."""


class _Native:
    name = "native"

    def probe(self) -> BackendInfo:
        try:
            from tengri_fast.inference.session import active_isa
        except ImportError as error:
            return BackendInfo(self.name, False, f"the extensions are not built: {error}")
        return BackendInfo(self.name, True, f"instruction set {active_isa()}")

    def load(self, source: Source, **options: Any) -> InferenceModel:
        from tengri_fast.inference.session import Model

        isa, format_ = options.pop("isa", None), options.pop("format", None)
        window = options.pop("window", None)
        options.pop("disabled_optimizers", None)  # there are no graph optimisers here
        _refuse(self.name, options)
        if _is_compiled(source):
            model = Model.from_compiled(source, isa=isa)
            if format_ not in (None, model.format):
                raise ModelLoadingError(f"`format` of a compiled model must be {model.format}, was {format_!r}")
            return model
        return Model.from_onnx(source, isa=isa, format=format_, window=window)


class _OnnxRuntime:
    name = "onnxruntime"

    def probe(self) -> BackendInfo:
        if importlib.util.find_spec("onnxruntime") is None:
            return BackendInfo(self.name, False, "package `onnxruntime` is missing: pip install 'tengri_fast[onnx]'")
        return BackendInfo(self.name, True, f"onnxruntime {_version('onnxruntime')}")

    def load(self, source: Source, **options: Any) -> InferenceModel:
        from tengri_fast.inference.ort import OrtModel

        for other in ("isa", "format"):  # ONNX Runtime chooses its kernels itself and takes the file as it is
            options.pop(other, None)
        window, disabled = options.pop("window", None), options.pop("disabled_optimizers", None)
        _refuse(self.name, options)
        return OrtModel.from_onnx(source, window=window, disabled_optimizers=disabled)


def _is_compiled(source: Source) -> bool:
    """Whether the source is a compiled file (.tgp), by its first bytes or its name."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source[:8]) == COMPILED
    return os.fspath(source).endswith(".tgp")


def _refuse(name: str, options: dict[str, Any]) -> None:
    if options:
        raise ConfigurationError(f"backend `{name}`: unknown option `{next(iter(options))}`")


_BUILT_IN: dict[str, Backend] = {"native": _Native(), "onnxruntime": _OnnxRuntime()}
_registered: dict[str, Backend] = {}

# Backends of other packages: name -> (package to look for, extra that installs it)
_KNOWN = {
    "tensorrt_rtx": ("tensorrt_rtx", "engine"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "cuda": ("cuda", "gpu"),
}


def register_backend(backend: Backend, *, replace: bool = False) -> None:
    """Make a backend known to :func:`load_model` and :func:`available_backends`.

    Parameters
    ----------
    backend : Backend
        Object with ``name``, ``probe()`` and ``load(source, **options)``.
    replace : bool, default False
        Allow an already registered name to be replaced. The built-in ones never are.

    Raises
    ------
    ConfigurationError
        If the name is taken, or the object is not a backend.
    """
    name = getattr(backend, "name", None)
    if not isinstance(name, str) or not name or not callable(getattr(backend, "load", None)):
        raise ConfigurationError("`backend` must have a name, probe() and load(source, **options)")
    if name in _BUILT_IN or (name in _registered and not replace):
        raise ConfigurationError(f"backend `{name}` is registered already")
    _registered[name] = backend


def _discover(name: str) -> Backend | None:
    """A registered backend, or one that an installed package announces by entry point."""
    found = _BUILT_IN.get(name) or _registered.get(name)
    if found is not None:
        return found
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        loaded = entry.load()
        backend: Backend = loaded() if isinstance(loaded, type) else loaded
        register_backend(backend)
        return _registered.get(name)
    return None


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises
    ------
    ConfigurationError
        If nobody registered it (the text lists the names there are), or the package that announces it fails.
    """
    try:
        found = _discover(name)
    except Exception as error:  # a plug-in's own code ran
        raise ConfigurationError(f"backend `{name}` cannot be loaded: {type(error).__name__}: {error}") from error
    if found is None:
        raise ConfigurationError(f"`backend` must be one of {', '.join(_names())}, was {name!r}")
    return found


def _names() -> list[str]:
    announced = [entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    return list(dict.fromkeys([*_BUILT_IN, *_registered, *announced]))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _has_driver() -> bool:
    return ctypes.util.find_library("cuda") is not None


def _look_for(name: str) -> BackendInfo:
    """A GPU backend that is not registered: what is there of it, without importing anything."""
    package, extra = _KNOWN[name]
    if importlib.util.find_spec(package) is None:
        return BackendInfo(name, False, f"package `{package}` is missing: pip install 'tengri_fast[{extra}]'")
    if not _has_driver():
        return BackendInfo(name, False, f"package `{package}` is here, but no NVIDIA driver (libcuda) was found")
    return BackendInfo(name, False, f"package `{package}` and a driver are here, but no backend is registered")


def available_backends() -> list[BackendInfo]:
    """Every backend known, whether it was found, and why not.

    Returns
    -------
    list of BackendInfo
        The native engine, ONNX Runtime, the GPU backends, then whatever else is registered. Nothing is loaded onto a
        GPU.
    """
    rows = []
    for name in dict.fromkeys([*_BUILT_IN, *_KNOWN, *_names()]):
        try:
            backend = _discover(name)
            rows.append(_look_for(name) if backend is None else backend.probe())
        except Exception as error:  # a broken plug-in is a row with a reason, not an end of the listing
            rows.append(BackendInfo(name, False, f"{type(error).__name__}: {error}"))
    return rows


def load_model(source: Source, backend: str = "auto", **options: Any) -> InferenceModel:
    """Load an ONNX file, or a compiled one (.tgp, native only), on a backend.

    Parameters
    ----------
    source : str, os.PathLike or bytes
        Path of the file, or its content.
    backend : str, default "auto"
        "native", "onnxruntime", a registered name, or "auto": native, and ONNX Runtime if the native engine
        declines; ``model.declined`` then says why.
    **options
        ``isa`` and ``format`` for the native engine, ``disabled_optimizers`` for ONNX Runtime; each passes over the
        other's. ``window`` is for a graph with an open time axis and no state inputs: natively the rows that a layer
        attends to or pools over where the graph takes all of them, on ONNX Runtime the rows that a session recomputes
        per step.

    Raises
    ------
    ModelLoadingError
        If the file is damaged or no backend can run it; with "auto" the text holds both reasons.
    MissingExtraError
        If ONNX Runtime is asked for and not installed.
    ConfigurationError
        If the backend or an option is unknown.
    """
    if backend != "auto":
        return get_backend(backend).load(source, **options)
    try:
        return _BUILT_IN["native"].load(source, **options)
    except ModelLoadingError as error:
        if _is_compiled(source):
            raise
        declined = str(error)
        if importlib.util.find_spec("onnxruntime") is None:
            if not declined.endswith("ONNX Runtime instead"):  # missing, damaged, or nothing that another could run
                raise
            raise ModelLoadingError(f"{declined}, which is not installed: pip install 'tengri_fast[onnx]'") from None
    from tengri_fast.inference.ort import OrtModel

    try:
        return OrtModel.from_onnx(
            source,
            window=options.get("window"),
            declined=declined,
            disabled_optimizers=options.get("disabled_optimizers"),
        )
    except ModelLoadingError as error:
        raise ModelLoadingError(f"native: {declined}; onnxruntime: {error}") from error
