"""Book snapshots out of the changes of a book, by the level-2 book in C."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import DEPTH_LEVELS, MarketColumns

__all__ = ["with_depth"]


def with_depth(columns: MarketColumns, levels: int = DEPTH_LEVELS, *, chained: bool = False) -> MarketColumns:
    """Add the book after every event as `depth`.

    Parameters
    ----------
    columns : MarketColumns
        With `deltas` and without `depth`. Deltas with order ids are a book by order, those without a book by price.
    levels : int
        1 to 10.
    chained : bool
        A hole in the sequence is a gap, after which there is no book until the next snapshot (see `Format.chained`).

    Returns
    -------
    MarketColumns
        One snapshot per event that leaves a whole book; notes count what the book refused. Snapshots have no exchange
        times.

    Raises
    ------
    DataConversionError
        If there are no deltas, there is depth already, or no event leaves a whole book.
    """
    from tengri_fast.market.book import OrderBookL2

    if not 1 <= levels <= DEPTH_LEVELS:
        raise DataConversionError(f"`levels` must be from 1 to {DEPTH_LEVELS}, was {levels}")
    source = columns.source or "the data"
    if columns.deltas is None:
        raise DataConversionError(f"`deltas` must be there to build a book, {source} has none")
    if columns.depth is not None:
        raise DataConversionError(f"`depth` must not be there already, {source} has it")
    mode: Literal["order", "price"] = "order" if bool((columns.deltas.order_id > 0).any()) else "price"
    book = OrderBookL2(mode, contiguous=chained)
    depth = book.depth_columns(columns.deltas, levels)
    if not len(depth):
        raise DataConversionError(f"`deltas` must leave a whole book at least once, those of {source} never do")
    counts = book.counters
    notes = [f"Depth is rebuilt from {counts.applied:,} changes in {counts.events:,} events."]
    if counts.gaps:
        notes.append(f"{counts.gaps:,} gap(s): there is no book from there to the next snapshot.")
    for name, text in (
        ("invalid", "are not valid"),
        ("backward", "run backward"),
        ("out_of_order", "are out of sequence"),
        ("unknown", "name a price or order that is not in the book"),
        ("crossed", "left the book crossed"),
        ("overflow", "did not fit"),
    ):
        count = getattr(counts, name)
        if count:
            notes.append(f"{count:,} changes {text}.")
    return replace(columns, depth=depth, notes=(*columns.notes, *notes))
