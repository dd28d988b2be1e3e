"""Writes a report: one page to open, one picture, one JSON with the numbers, and the record they were made from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tengri_fast.report._files import plain, to_json_text, write_atomic
from tengri_fast.report.page import headline, page_data
from tengri_fast.report.record import RunRecord
from tengri_fast.report.skill import BASELINES, HitRate

__all__ = ["summary", "write_report"]


def summary(record: RunRecord) -> dict[str, Any]:
    """The numbers of a run for machines.

    Returns
    -------
    dict
        First the fixed keys ``pnl``, ``fees``, ``currency``, ``trades``, ``hit_rate``, ``baselines``,
        ``tick_to_signal_ns``, ``orders``, ``isa``, ``versions``, ``data_sha256``, ``config_sha256``, ``model_sha256``,
        then further ones. Rates are fractions, times nanoseconds; what does not exist is None.
    """
    skill = record.skill
    model = skill.model if skill else None
    rivals = skill.baselines if skill else {}
    percentiles = record.latency.percentiles() if record.latency else dict.fromkeys(("p50", "p99", "p999", "max"))
    result = headline(record)
    data = {
        "pnl": record.pnl,
        "fees": record.fees,
        "currency": record.currency,
        "trades": len(record.trades["net"]),
        "hit_rate": model.rate if model else None,
        "baselines": {name: rivals[name].rate if name in rivals else None for name in BASELINES},
        "tick_to_signal_ns": percentiles,
        "orders": {"submitted": record.submitted, "denied": record.denied},
        "isa": record.isa,
        "versions": record.versions,
        "data_sha256": record.data_sha256,
        "config_sha256": record.config_sha256,
        "model_sha256": record.model_sha256,
        "name": record.name,
        "title": record.title,
        "instrument_id": record.instrument_id,
        "span_ns": record.span,
        "notes": record.notes,
        "moves": skill.moves if skill else 0,
        "hit_rate_interval": _interval(model),
        "baseline_intervals": {name: _interval(rivals.get(name)) for name in BASELINES},
        "brier": skill.calibration.brier if skill else None,
        "ece": skill.calibration.ece if skill else None,
        "pnl_gross": result["gross"],
        "starting_equity": record.starting_equity,
        "max_drawdown": result["max_drawdown"],
        "pnl_per_trade": result["mean_net"],
        "pnl_per_trade_interval": [result["mean_net_low"], result["mean_net_high"]],
        "signals": len(record.signals["ts"]),
        "fills": len(record.fills["ts"]),
        "orders_filled": record.filled,
        "denied_by_source": record.denied_by_source(),
        "seeds": record.seeds,
        "trials": record.trials,
        "run_seconds": record.run_seconds,
        "commit": record.commit,
    }
    found: dict[str, Any] = plain(data)
    return found


def _interval(found: HitRate | None) -> list[float] | None:
    """95 %: block bootstrap where it was computed, else Wilson."""
    if found is None or not found.moves:
        return None
    return [found.block_low, found.block_high] if math.isfinite(found.block_low) else [found.low, found.high]


def write_report(record: RunRecord, out_dir: str | Path) -> dict[str, Path]:
    """Write ``report.html``, ``report.png``, ``summary.json`` and ``record.json`` (with its arrays) into `out_dir`.

    Everything is drawn before anything is written, and each file is written whole or not at all.

    Parameters
    ----------
    record : RunRecord
        The run.
    out_dir : str or Path
        Made when it does not exist.

    Returns
    -------
    dict of str to Path
        Keys ``html``, ``png``, ``summary``, ``record``.

    Raises
    ------
    MissingExtraError
        If plotly or matplotlib is not installed (extra ``report``).
    """
    from tengri_fast.report.picture import picture_png
    from tengri_fast.report.web import page_html

    folder = Path(out_dir)
    page = page_data(record)
    html = page_html(page).encode("utf-8", "replace")
    png = picture_png(page)
    numbers = to_json_text(summary(record)).encode()
    files = {"html": folder / "report.html", "png": folder / "report.png", "summary": folder / "summary.json"}
    for path, content in zip(files.values(), (html, png, numbers), strict=True):
        write_atomic(path, content)
    files["record"] = record.to_json(folder / "record.json")
    return files
