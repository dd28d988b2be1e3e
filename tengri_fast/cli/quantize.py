"""``tengri quantize``: a model in a smaller number format, if it proves to be the same model."""

from __future__ import annotations

from pathlib import Path

import click

from tengri_fast.cli.model_options import acceptance_options, finish, limits_of, progress_bar, rows_for


@click.command()
@acceptance_options
@click.option("--format", "number_format", type=click.Choice(["int8", "int8a16", "fp16", "bf16"]), default="int8",
              show_default=True, help="Of the weights, and for the first two of what meets them.")  # fmt: skip
@click.option("--method", type=click.Choice(["mse", "absmax", "percentile"]), default="mse", show_default=True,
              help="How activation ranges are clipped.")  # fmt: skip
@click.option("--percentile", type=float, default=99.99, show_default=True, help="Of the magnitudes, for that method.")
@click.option("--weights", type=click.Choice(["mse", "absmax"]), default="mse", show_default=True,
              help="How weight scales are found.")  # fmt: skip
@click.option("--bias-correction", is_flag=True, help="Take each layer's measured shift off its bias.")
@click.option("--float-attention", is_flag=True, help="int8: leave queries, keys and values in float.")
def quantize(
    model: Path, calibration: tuple[Path, ...], held_out: tuple[Path, ...], split: float, features: Path | None,
    output: Path, keep: tuple[str, ...], max_flips: float, max_relative_error: float, max_calibration_shift: float,
    max_error: float | None, decision: str, force: bool, quiet: bool, number_format: str, method: str,
    percentile: float, weights: str, bias_correction: bool, float_attention: bool,
) -> None:  # fmt: skip
    """Write MODEL in a smaller number format, with a report, if it passes.

    MODEL is an ONNX file, a model.toml, its folder, or a name of the zoo. Scales come from the calibration rows; the
    result is compared with MODEL on held-out rows. When a limit is exceeded no artefact is written and the exit code
    is 1.
    """
    from rich.console import Console

    from tengri_fast.cli.model_files import load_network
    from tengri_fast.inference.acceptance import accept
    from tengri_fast.inference.quantize import quantize as run

    limits = limits_of(max_flips, max_relative_error, max_calibration_shift, max_error)
    loaded = load_network(model)
    rows = rows_for(loaded, calibration, held_out, split, features)
    with progress_bar(Console(stderr=True, quiet=quiet)) as show:
        made, report = run(
            loaded.network, number_format, rows.calibration, method=method, percentile=percentile, weights=weights,
            keep=keep, bias_correction=bias_correction, attention=not float_attention,
            progress=lambda done, total: show("calibrating", done, total),
        )  # fmt: skip
        found = accept(loaded.network, made, rows.held_out, limits=limits, decision=decision, progress=show)
    facts = {
        "Source": str(loaded.path), "Source SHA-256": loaded.sha256, "Format": number_format, "Rows": rows.how,
        "Calibration SHA-256": report.calibration_sha256 or "not needed",
        "Scales": f"activations {method}, weights {weights}" if report.method else "rounded to nearest even",
    }  # fmt: skip
    headers = ("layer", "kind", "format", "scales", "largest seen", "saturated", "weight error")
    layers = [
        (
            layer.name, layer.kind, layer.format + (" (kept)" if layer.kept else ""),
            ", ".join(f"{key} {value:.4g}" for key, value in layer.scales.items()),
            ", ".join(f"{key} {value:.4g}" for key, value in layer.absmax.items()),
            ", ".join(f"{key} {value:.3%}" for key, value in layer.clipped.items()),
            ", ".join(f"{key} {value:.3%}" for key, value in layer.weight_error.items()),
        )
        for layer in report.layers
    ]  # fmt: skip
    title = f"{loaded.name} in {number_format}"
    finish(loaded, made, found, report.to_dict(), output, title, facts, [("Layers", headers, layers)], force, quiet)
