"""``tengri compile``: a model as one file that loads in under a millisecond and needs no Python."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path),
              help="File to write [default: MODEL's name with .tgp, here].")  # fmt: skip
@click.option("--format", "number_format", type=click.Choice(["fp32", "fp16", "bf16"]),
              help="Store the weights of a float model so [default: as they are].")  # fmt: skip
def compile_(model: Path, output: Path | None, number_format: str | None) -> None:
    """Write MODEL as one compiled file for every instruction set.

    It holds the plan and the packed weights, and loads without Python. MODEL is an ONNX file, a model.toml, its folder,
    or a name of the zoo.
    """
    import time

    from tengri_fast.cli.model_files import load_network
    from tengri_fast.inference import Model

    loaded = load_network(model)
    network = loaded.network if number_format is None else loaded.network.converted(number_format)
    path = output or Path(f"{loaded.name}.tgp")
    Model.from_network(network).save(path)
    start = time.perf_counter()
    again = Model.from_compiled(path)
    milliseconds = 1e3 * (time.perf_counter() - start)
    click.echo(f"{path}: {path.stat().st_size:,} bytes, {network.format}, {len(again.layers)} layers, "
               f"loads in {milliseconds:.2f} ms")  # fmt: skip
    click.echo(f"weights {again.weights_hash}, source SHA-256 {loaded.sha256}")
