from collections.abc import Mapping

from tengri_fast.features.plan import FeaturePlan, FeatureRows, FeatureState
from tengri_fast.market.columns import BarColumns, DepthColumns, ExternalColumns, QuoteColumns, TradeColumns

CLOCKS: tuple[str, ...]

def compute_rows(
    plan: FeaturePlan,
    quotes: QuoteColumns | None,
    trades: TradeColumns | None,
    depth: DepthColumns | None,
    clock: str,
    bars: BarColumns | None,
    legs: Mapping[str, QuoteColumns] | None,
    external: Mapping[str, ExternalColumns] | None,
    state: FeatureState | None,
) -> FeatureRows: ...
