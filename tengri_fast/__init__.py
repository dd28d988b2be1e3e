"""tengri_fast: low-latency neural signals and pre-trade risk inside NautilusTrader."""

from __future__ import annotations

__version__ = "0.1.0"
