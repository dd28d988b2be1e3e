"""``tengri inspect``: layers, sizes, what runs natively, and the least time a step can take here."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from tengri_fast.inference import Model
    from tengri_fast.inference.network import Network

FORMATS = ("fp32", "fp16", "bf16", "int8", "int8a16")
ENTRY = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int8a16": 1}


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("as_json", "--json", is_flag=True, help="JSON instead of text.")
@click.option("--floors/--no-floors", default=True, show_default=True,
              help="Measure this machine's caches to predict the least time of a step.")  # fmt: skip
def inspect(model: Path, as_json: bool, floors: bool) -> None:
    """Show what MODEL is made of and what it costs.

    MODEL is an ONNX file, a compiled file (.tgp), a model.toml, its folder, or a name of the zoo. The predicted floor
    is the time that reading the weights takes at the measured bandwidth of the cache that holds them; a step takes
    longer.
    """
    from tengri_fast.cli.model_files import resolve_model

    path, _ = resolve_model(model)
    found = describe_compiled(path) if path.suffix == ".tgp" else describe_onnx(path)
    if floors and found["native"]:
        _add_floors(found)
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    render(found, Console(highlight=False))


def describe_onnx(path: Path) -> dict[str, Any]:
    """What an ONNX file holds, as plain values."""
    from tengri_fast.cli.model_files import load_network
    from tengri_fast.errors import ModelLoadingError
    from tengri_fast.inference.onnx_reader import parse, read_source

    data = read_source(path)
    graph = parse(data)
    operators: dict[str, int] = {}
    for node in graph.nodes:
        operators[node.op] = operators.get(node.op, 0) + 1
    found: dict[str, Any] = {
        "path": str(path),
        "file_bytes": len(data),
        "opset": graph.opset,
        "operators": dict(sorted(operators.items())),
        "native": False,
        "declined": None,
        "layers": [],
    }
    try:
        loaded = load_network(path)
        network = loaded.network
        found |= {"sha256": loaded.sha256, **_network_facts(network)}
        from tengri_fast.inference import Model

        native = Model.from_network(network)
    except (ModelLoadingError, ImportError) as error:
        found["declined"] = str(error)
        return found
    found["native"] = True
    found |= _model_facts(native)
    for row, traffic in zip(found["layers"], native.traffic(), strict=True):
        row |= {"critical_bytes": traffic.finish_bytes, "prepare_bytes": traffic.prepare_bytes}
    found["formats"] = _formats(network, native)
    return found


def describe_compiled(path: Path) -> dict[str, Any]:
    """What a compiled file holds, as plain values."""
    from tengri_fast.inference import Model

    model = Model.from_compiled(path)
    layers = [
        {"index": i, "name": layer.name, "kind": layer.kind, "format": getattr(layer, "format", ""),
         "output": layer.output_size, "parameters": None, "critical_bytes": traffic.finish_bytes,
         "prepare_bytes": traffic.prepare_bytes}
        for i, (layer, traffic) in enumerate(zip(model.layers, model.traffic(), strict=True))
    ]  # fmt: skip
    return {
        "path": str(path), "file_bytes": path.stat().st_size, "native": True, "declined": None, "sha256": model.sha256,
        "input": model.input_size, "output": model.output_size, "format": model.format, "parameters": None,
        "layers": layers, "metadata": dict(model.metadata), **_model_facts(model),
    }  # fmt: skip


def _network_facts(network: Network) -> dict[str, Any]:
    from tengri_fast.inference.canonical import state_shapes

    layers = []
    for i, node in enumerate(network.nodes):
        layer = node.layer
        held = [getattr(layer, entry.name) for entry in fields(layer)]
        sources = ["input" if source < 0 else str(source) for source in node.inputs]
        layers.append(
            {
                "index": i,
                "name": layer.name,
                "kind": layer.kind,
                "activation": layer.activation,
                "reads": sources,
                "format": node.format,
                "output": layer.output_size,
                "parameters": sum(int(value.size) for value in held if hasattr(value, "size")),
            }
        )
    return {
        "input": network.input_size,
        "output": network.output_size,
        "outputs": [list(entry) for entry in network.outputs],
        "format": network.format,
        "parameters": sum(row["parameters"] for row in layers),
        "windowed_only": network.windowed_only,
        "states": [[name, list(shape)] for name, shape in state_shapes(network)],
        "layers": layers,
        "metadata": dict(network.metadata),
    }


def _model_facts(model: Model) -> dict[str, Any]:
    return {
        "isa": model.isa,
        "packed_bytes": model.nbytes,
        "session_bytes": model.session_nbytes,
        "critical_bytes": model.finish_bytes,
        "prepare_bytes": model.prepare_bytes,
        "period": model.period,
    }


def _formats(network: Network, native: Model) -> list[dict[str, Any]]:
    """Bytes of the weights in each format; for a float network also what its packed forms would read."""
    from tengri_fast.inference.network import WEIGHTED

    is_float = network.format in ("fp32", "fp16", "bf16") and all(n.format in ENTRY for n in network.nodes)
    rows = []
    for name in FORMATS:
        if not is_float and name != network.format:
            continue
        total = 0
        for node in network.nodes:
            for entry in fields(node.layer):
                value = getattr(node.layer, entry.name)
                if not hasattr(value, "size"):
                    continue
                matrix = entry.name in WEIGHTED.get(node.layer.kind, ())
                total += int(value.size) * (ENTRY[name] if matrix else 4)
                if matrix and name.startswith("int8"):
                    total += 4 * int(value.shape[-2])
        row: dict[str, Any] = {"format": name, "weight_bytes": total}
        packed = native if name == network.format else _packed(network, name)
        if packed is not None:
            row |= {
                "packed_bytes": packed.nbytes,
                "critical_bytes": packed.finish_bytes,
                "prepare_bytes": packed.prepare_bytes,
            }
        rows.append(row)
    return rows


def _packed(network: Network, name: str) -> Model | None:
    """The model in another format, for its sizes only; None where the engine has no such form of it."""
    from dataclasses import replace

    import numpy as np

    from tengri_fast.errors import ModelLoadingError
    from tengri_fast.inference import Model
    from tengri_fast.inference.quantize import quantize

    plain = replace(network, nodes=tuple(replace(node, format="fp32") for node in network.nodes))
    # Sizes do not depend on scales, so any rows will do for them.
    rows = np.random.default_rng(0).normal(size=(64, network.input_size)).astype(np.float32)
    try:
        return Model.from_network(plain if name == "fp32" else quantize(plain, name, rows, weights="absmax")[0])
    except ModelLoadingError:
        return None


def _add_floors(found: dict[str, Any]) -> None:
    from tengri_fast.inference.hardware import bandwidths, floor_ns, processor

    found["processor"] = processor()
    found["bandwidth"] = [
        {"level": level.name, "capacity": level.capacity, "gb_per_second": round(level.gb_per_second, 1)}
        for level in bandwidths()
    ]
    for row in (found, *found.get("formats", ())):
        if "critical_bytes" in row:
            held = row["critical_bytes"] + row["prepare_bytes"]
            critical, level = floor_ns(row["critical_bytes"], held)
            row["floor_critical_ns"] = round(critical, 1)
            row["floor_step_ns"] = round(floor_ns(held, held)[0], 1)
            row["floor_level"] = level.name


def render(found: dict[str, Any], console: Console) -> None:
    """The description as tables."""
    from rich.table import Table

    console.print(f"{found['path']}  {found['file_bytes']:,} bytes", markup=False, soft_wrap=True)
    if "opset" in found:
        operators = ", ".join(f"{name} x{count}" if count > 1 else name for name, count in found["operators"].items())
        console.print(f"ONNX operator set {found['opset']}: {operators}", markup=False, soft_wrap=True)
    if not found["native"]:
        console.print(f"[yellow]not native:[/] {found['declined']}", soft_wrap=True)
    if not found["layers"]:
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in ("#", "layer", "kind", "reads", "format", "out", "weights", "critical B", "prepare B"):
        left = name in ("layer", "kind", "reads", "format")
        table.add_column(name, justify="left" if left else "right", no_wrap=True, max_width=22 if left else None)
    for row in found["layers"]:
        kind = row["kind"] + (f" + {row['activation']}" if row.get("activation", "none") != "none" else "")
        table.add_row(
            str(row["index"]), row["name"], kind, ", ".join(row.get("reads", ())), row["format"], f"{row['output']:,}",
            *(_count(row.get(key)) for key in ("parameters", "critical_bytes", "prepare_bytes")),
        )  # fmt: skip
    console.print(table)
    about = f"{found['input']} features in, {found['output']} values out, {found['format']}"
    if found["parameters"] is not None:
        about += f", {found['parameters']:,} weights"
    console.print(about)
    if found["native"]:
        console.print(
            f"native on {found['isa']}: {found['packed_bytes']:,} bytes packed, {found['session_bytes']:,} per session"
        )
    rows = found.get("formats") or ([found] if "critical_bytes" in found else [])
    if rows:
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        headers = ("format", "weight B", "packed B", "critical", "prepare", "crit. floor", "step floor", "in")
        for name in headers:
            table.add_column(name, justify="left" if name in ("format", "in") else "right", no_wrap=True)
        for row in rows:
            table.add_row(
                row["format"],
                *(_count(row.get(key)) for key in ("weight_bytes", "packed_bytes", "critical_bytes", "prepare_bytes")),
                *(f"{row[key]:,.0f} ns" if key in row else "" for key in ("floor_critical_ns", "floor_step_ns")),
                row.get("floor_level", ""),
            )
        console.print(table)
    if "bandwidth" in found:
        levels = ", ".join(f"{row['level']} {row['gb_per_second']:,.0f} GB/s" for row in found["bandwidth"])
        console.print(f"{found['processor']}, read by one core: {levels}", markup=False, soft_wrap=True)


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
