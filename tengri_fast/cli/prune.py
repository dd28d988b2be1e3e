"""``tengri prune``: a smaller model, if it proves to be the same model."""

from __future__ import annotations

from pathlib import Path

import click

from tengri_fast.cli.model_options import acceptance_options, finish, limits_of, progress_bar, rows_for


@click.command()
@acceptance_options
@click.option("--target", type=float, help="Share of the units of each layer to remove, such as 0.5.")
@click.option("--units", type=int, help="Units or channels to keep in each layer.")
@click.option("--pattern", metavar="N:M", help="Zero weights instead, N of every M inputs stay, such as 2:4.")
@click.option("--saliency", type=click.Choice(["activation", "magnitude"]), default="activation", show_default=True,
              help="What decides which go.")  # fmt: skip
@click.option("--kinds", multiple=True, type=click.Choice(["units", "channels", "heads"]),
              default=("units", "channels", "heads"), help="What may go [default: all].")  # fmt: skip
@click.option("--align", type=int, default=16, show_default=True, help="Units left are a multiple of this.")
@click.option("--no-compensation", is_flag=True, help="Do not add the mean of what goes to its readers' biases.")
def prune(
    model: Path, calibration: tuple[Path, ...], held_out: tuple[Path, ...], split: float, features: Path | None,
    output: Path, keep: tuple[str, ...], max_flips: float, max_relative_error: float, max_calibration_shift: float,
    max_error: float | None, decision: str, force: bool, quiet: bool, target: float | None, units: int | None,
    pattern: str | None, saliency: str, kinds: tuple[str, ...], align: int, no_compensation: bool,
) -> None:  # fmt: skip
    """Write a smaller MODEL, with a report, if it passes.

    MODEL is an ONNX file, a model.toml, its folder, or a name of the zoo. Units are chosen on the calibration rows; the
    result is compared with MODEL on held-out rows. When a limit is exceeded no artefact is written and the exit code
    is 1. Prune first, then quantise.
    """
    from rich.console import Console

    from tengri_fast.cli.model_files import load_network
    from tengri_fast.inference.acceptance import accept
    from tengri_fast.inference.prune import prune as run

    limits = limits_of(max_flips, max_relative_error, max_calibration_shift, max_error)
    loaded = load_network(model)
    rows = rows_for(loaded, calibration, held_out, split, features)
    with progress_bar(Console(stderr=True, quiet=quiet)) as show:
        made, report = run(
            loaded.network, rows.calibration, target=target, units=units, pattern=pattern, saliency=saliency,
            kinds=kinds, keep=keep, align=align, compensate=not no_compensation,
            progress=lambda done, total: show("measuring saliency", done, total),
        )  # fmt: skip
        found = accept(loaded.network, made, rows.held_out, limits=limits, decision=decision, progress=show)
    asked = f"{target:.0%} of the units" if target is not None else pattern or f"down to {units} units"
    facts = {
        "Source": str(loaded.path), "Source SHA-256": loaded.sha256, "Pruned": asked, "Saliency": saliency,
        "Rows": rows.how, "Calibration SHA-256": report.calibration_sha256,
    }  # fmt: skip
    headers = ("layer", "kind", "before", "after", "saliency removed")
    families = [(f.name, f.kind, f.before, f.after, f"{f.saliency_removed:.2%}") for f in report.families]
    title = f"{loaded.name}, pruned: {asked}"
    finish(loaded, made, found, report.to_dict(), output, title, facts, [("Layers", headers, families)], force, quiet)
