"""``tengri engine``: TensorRT engines, built ahead of time."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def engine() -> None:
    """Build TensorRT engines ahead of time; no GPU is needed."""


@engine.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp16", show_default=True,
              help="Type of every tensor.")  # fmt: skip
@click.option("--target", "targets", multiple=True, default=("SM89",), show_default=True,
              help="Compute capability, e.g. SM80; may be given several times.")  # fmt: skip
@click.option("--batch", type=(int, int, int), default=(1, 1, 1024), show_default=True,
              help="Smallest, best and largest number of instruments per launch.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=None,
              help="File to write (default: out/engines/ID-PRECISION-TARGETS.engine).")  # fmt: skip
def build(model: Path, precision: str, targets: tuple[str, ...], batch: tuple[int, int, int], out: Path | None) -> None:
    """Build an engine for one step of MODEL: a model.toml, its folder, a name of the zoo, or an ONNX file."""
    from tengri_fast.engines import build_engine, step_graph
    from tengri_fast.errors import ModelLoadingError
    from tengri_fast.inference import Model
    from tengri_fast.models import model_path
    from tengri_fast.runtime.model_spec import load_bundle

    if model.suffix == ".onnx":
        name, network = model.stem, Model.from_onnx(model).network
    else:
        bundle = load_bundle(model if model.exists() else model_path(str(model)))
        name, network = bundle.spec.id, bundle.model.network
    if network is None:
        raise ModelLoadingError(f"{name}: a compiled model holds no weights to build from: give its ONNX file")
    graph = step_graph(network, precision, name)
    path = out or Path("out") / "engines" / f"{name}-{precision}-{'-'.join(targets)}.engine"
    built = build_engine(graph, path, targets=targets, profile=batch)
    click.echo(f"{built.path}: {built.nbytes:,} bytes, {precision}, for {', '.join(built.targets) or 'this GPU'}, "
               f"by {built.package} {built.version}")  # fmt: skip
    click.echo(f"key {built.key}")
