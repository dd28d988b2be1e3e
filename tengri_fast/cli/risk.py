"""``tengri risk``: backtest value at risk, report the risk of a portfolio, show that the controls work."""

from __future__ import annotations

import click

from tengri_fast.cli import LazyGroup

COMMANDS = {
    "backtest": (
        "tengri_fast.cli.risk_backtest:backtest",
        "Judge VaR and ES forecasts of a series by what happened.",
    ),
    "evidence": (
        "tengri_fast.cli.risk_evidence:evidence",
        "Send bad orders on purpose, and show what came back.",
    ),
    "report": (
        "tengri_fast.cli.risk_report:report",
        "Show VaR, ES, attribution, stress and limits of a portfolio.",
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def risk() -> None:
    """Measure risk, and backtest the measures."""
