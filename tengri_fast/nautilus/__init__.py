"""The NautilusTrader room: strategies, the risk gate, loaders and backtest assembly.

Nautilus' Cython classes give no stable binary interface, and Cython compares object sizes only, not method tables.
So this room is built for exactly one release and refuses any other before an extension of it is loaded. Importing the
package checks the version and lets the zero-copy reader learn the layout of the data objects; the classes themselves
are imported when they are first used.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from tengri_fast.errors import MissingExtraError, NeuralIntegrationError

NAUTILUS_VERSION = "1.231.0"

_EXPORTS = {
    "MarketData": "tengri_fast.nautilus.loaders",
    "NeuralRiskGate": "tengri_fast.nautilus.gate",
    "Observation": "tengri_fast.nautilus.observations",
    "RiskGateConfig": "tengri_fast.nautilus.gate_config",
    "TengriNeuralConfig": "tengri_fast.nautilus.config",
    "TengriNeuralStrategy": "tengri_fast.nautilus.strategy",
    "assemble": "tengri_fast.nautilus.backtest",
    "run_backtest": "tengri_fast.nautilus.backtest",
}

__all__ = [
    "NAUTILUS_VERSION",
    "MarketData",
    "NeuralRiskGate",
    "Observation",
    "RiskGateConfig",
    "TengriNeuralConfig",
    "TengriNeuralStrategy",
    "UnsupportedNautilusError",
    "assemble",
    "run_backtest",
]

if TYPE_CHECKING:
    from tengri_fast.nautilus.backtest import assemble, run_backtest
    from tengri_fast.nautilus.config import TengriNeuralConfig
    from tengri_fast.nautilus.gate import NeuralRiskGate
    from tengri_fast.nautilus.gate_config import RiskGateConfig
    from tengri_fast.nautilus.loaders import MarketData
    from tengri_fast.nautilus.observations import Observation
    from tengri_fast.nautilus.strategy import TengriNeuralStrategy


class UnsupportedNautilusError(NeuralIntegrationError, ImportError):
    """The installed NautilusTrader is not the one that this room was built for."""


def check_version() -> None:
    """Refuse when NautilusTrader is absent or another release than the one this room was built for.

    Reads the installed package's metadata only; NautilusTrader itself is not imported.

    Raises
    ------
    MissingExtraError
        If NautilusTrader is not installed.
    UnsupportedNautilusError
        If another release is installed.
    """
    try:
        found = metadata.version("nautilus_trader")
    except metadata.PackageNotFoundError:
        raise MissingExtraError("nautilus_trader", "nautilus", "tengri_fast.nautilus") from None
    if found != NAUTILUS_VERSION:
        raise UnsupportedNautilusError(
            f"`nautilus_trader` must be {NAUTILUS_VERSION}, which tengri_fast.nautilus was built for, was {found}: "
            f"pip install 'tengri_fast[nautilus]'"
        )


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(_EXPORTS[name])
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("tengri_fast.nautilus."):
            raise
        raise UnsupportedNautilusError(
            f"`{error.name}` must be compiled, was not: tengri_fast was built without nautilus_trader "
            f"{NAUTILUS_VERSION} present; install that and build again: pip install --no-cache-dir --force-reinstall "
            f"'tengri_fast[nautilus]'"
        ) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


check_version()

# Only now: the probe imports NautilusTrader, and the reader must know the layouts before the first tick.
from tengri_fast.nautilus._probe import install_layouts  # noqa: E402

install_layouts()
