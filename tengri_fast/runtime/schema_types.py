"""Types that several sections of a configuration share; see :mod:`tengri_fast.runtime.schema` for their extras."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from msgspec import Meta

__all__ = [
    "Amount",
    "Currency",
    "Duration",
    "InstrumentName",
    "LimitText",
    "Name",
    "PositiveDuration",
    "Rate",
    "Size",
    "Tag",
    "Text",
]

Duration = Annotated[int, Meta(ge=0, extra={"kind": "duration"})]
PositiveDuration = Annotated[int, Meta(gt=0, extra={"kind": "duration"})]
Size = Annotated[Decimal, Meta(extra={"kind": "size"})]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Name = Annotated[
    str,
    Meta(extra={"pattern": r"[\x21-\x7e]{1,64}", "rule": "must be 1 to 64 visible ASCII characters without spaces"}),
]
Tag = Annotated[
    str, Meta(extra={"pattern": r"[A-Za-z0-9_]{1,16}", "rule": "must be 1 to 16 letters, digits or underscores"})
]
InstrumentName = Annotated[
    str,
    Meta(
        extra={
            "pattern": r"[\x21-\x7e]{1,100}\.[A-Za-z0-9_-]{1,50}",
            "rule": 'must be a symbol and a venue, such as "BTCUSDT-PERP.BINANCE"',
        }
    ),
]
Currency = Annotated[
    str, Meta(extra={"pattern": r"[A-Z0-9]{2,10}", "rule": 'must be a currency code in capitals, such as "USDT"'})
]
#: Money as a number, or a share of equity as "150%"; kept as text.
Amount = Annotated[str, Meta(extra={"kind": "amount"})]
#: The same, or a rate: what the limit of any measure may be.
LimitText = Annotated[str, Meta(extra={"kind": "limit"})]
RATE_PATTERN = r"[1-9][0-9]{0,6}/[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ns|us|ms|s|m|h|d)"
Rate = Annotated[str, Meta(extra={"pattern": RATE_PATTERN, "rule": 'must be a number and a time, such as "100/1s"'})]
