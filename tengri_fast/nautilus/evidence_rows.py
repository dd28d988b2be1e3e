"""The script of the control evidence: every control, an order that it must let pass, and one that it must refuse."""

from __future__ import annotations

from tengri_fast.nautilus.evidence_orders import GATE, KNOWN, PRICE, SIZE
from tengri_fast.nautilus.evidence_portfolio import FLOW, KILLS, MODEL, PORTFOLIO, SCOPED, WHERE
from tengri_fast.nautilus.evidence_steps import Row

__all__ = ["AREAS", "ROWS"]

#: Rows by what they are about.
AREAS: dict[str, tuple[Row, ...]] = {
    "The gate": GATE,
    "Price": PRICE,
    "Size of one order": SIZE,
    "Position and portfolio": PORTFOLIO,
    "Parts of the portfolio": SCOPED,
    "Losses and the kill switch": KILLS,
    "Flow of orders": FLOW,
    "Where and when": WHERE,
    "Health of the model": MODEL,
    "What must be known": KNOWN,
}
ROWS: tuple[Row, ...] = tuple(row for rows in AREAS.values() for row in rows)
