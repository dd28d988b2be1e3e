"""Builds TensorRT engines ahead of time.

``tensorrt_rtx`` builds with no GPU, no driver and no CUDA library; full ``tensorrt`` needs its builder library and a
GPU. One code path serves both: they differ only in how the target is set. Networks are strongly typed, so the precision
of an engine is the precision of its ONNX.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tengri_fast.errors import MissingExtraError, ModelLoadingError

__all__ = ["EngineBuild", "build_engine", "cache_key", "driver_present", "engine_targets", "tensorrt_module"]


@dataclass(frozen=True)
class EngineBuild:
    """What was built: the file, its key, and what it was built for."""

    path: Path
    nbytes: int
    sha256: str
    key: str
    package: str
    version: str
    targets: tuple[str, ...]
    onnx_sha256: str
    profile: tuple[int, int, int]


def driver_present() -> bool:
    """Whether ``libcuda.so.1`` can be loaded.

    Ask before touching a runtime: without a driver the TensorRT runtime crashes the process at exit.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def tensorrt_module() -> Any:
    """The TensorRT Python module that is installed, ``tensorrt_rtx`` first.

    Raises
    ------
    MissingExtraError
        When neither is installed.
    """
    for name in ("tensorrt_rtx", "tensorrt"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if name == "tensorrt" and not driver_present():
            continue
        return module
    raise MissingExtraError("tensorrt_rtx", "engine", "building an engine")


def engine_targets(trt: Any) -> tuple[str, ...]:
    """The compute capabilities that this TensorRT can build for without such a GPU, e.g. ``("SM80", "SM89")``."""
    if not hasattr(trt, "ComputeCapability"):
        return ()
    names = trt.ComputeCapability.__members__
    return tuple(sorted((n for n in names if n.startswith("SM")), key=lambda n: int(n[2:])))


def cache_key(trt: Any, onnx: bytes, targets: Sequence[str], profile: Sequence[int]) -> str:
    """Everything an engine depends on: package, version, targets, ONNX content and batch profile."""
    text = "|".join(
        [
            trt.__name__,
            trt.__version__,
            ",".join(targets) or "this-gpu",
            hashlib.sha256(onnx).hexdigest(),
            ",".join(map(str, profile)),
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()


class _Log:
    """Collects what TensorRT says, so that a failure can be explained in its own words."""

    @staticmethod
    def make(trt: Any) -> Any:
        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.errors: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    self.errors.append(message)

        return Logger()


def build_engine(
    onnx: bytes,
    output: str | Path,
    *,
    targets: Sequence[str] = ("SM89",),
    profile: tuple[int, int, int] = (1, 1, 1024),
) -> EngineBuild:
    """Builds an engine from a single-step ONNX and writes it atomically.

    Parameters
    ----------
    onnx : bytes
        A strongly typed graph, e.g. from ``step_graph``.
    output : str or Path
        File to write.
    targets : sequence of str
        Compute capabilities, e.g. ``("SM80", "SM89")``. TensorRT-RTX only.
    profile : (int, int, int)
        Smallest, best and largest batch.

    Raises
    ------
    ModelLoadingError
        When a target is unknown, the parser refuses the graph, or the build fails; the message is TensorRT's own.
    MissingExtraError
        When no TensorRT is installed.
    """
    trt = tensorrt_module()
    if not 1 <= profile[0] <= profile[1] <= profile[2]:
        raise ModelLoadingError(f"`profile` must be 1 <= smallest <= best <= largest, was {profile}")
    known = engine_targets(trt)
    for target in targets:
        if known and target not in known:
            raise ModelLoadingError(f"`target` must be one of {', '.join(known)} for {trt.__name__} {trt.__version__}, "
                                    f"was {target!r}")  # fmt: skip
    if not known and targets:
        targets = ()  # full TensorRT builds for the GPU that is there

    log = _Log.make(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        said = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or "; ".join(log.errors)
        raise ModelLoadingError(f"{trt.__name__} refused the graph: {said or 'no reason was given'}")
    config = builder.create_builder_config()
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            if not config.set_compute_capability(trt.ComputeCapability.__members__[target], index):
                raise ModelLoadingError(f"{trt.__name__} refused target {target}: {'; '.join(log.errors)}")
    shapes = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        width = tuple(tensor.shape)[1:]
        shapes.set_shape(tensor.name, *((batch, *width) for batch in profile))
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelLoadingError(
            f"{trt.__name__} could not build the engine: {'; '.join(log.errors) or 'no reason given'}"
        )
    data = bytes(plan)

    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return EngineBuild(
        path=path,
        nbytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        key=cache_key(trt, onnx, targets, profile),
        package=trt.__name__,
        version=trt.__version__,
        targets=tuple(targets),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        profile=profile,
    )
