"""What a gate's portfolio is given beside prices and orders: return scenarios, stress scenarios, what a restart kept.

Scenarios come from a file, are handed in, or are collected while running. Whatever their source, the method of
:class:`~tengri_fast.risk.VarSettings` is applied to them here, ahead of orders, and the stress matrix is made anew when
the scenarios that it rests on are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tengri_fast.errors import ConfigurationError, DataConversionError, NeuralIntegrationError
from tengri_fast.risk import PortfolioState, RiskGate, ScenarioSet, VarSettings
from tengri_fast.risk.gate_scenarios import gate_scenarios, gate_stress
from tengri_fast.risk.rolling import RollingScenarios

if TYPE_CHECKING:
    from tengri_fast.risk.volatility import NeuralRiskModel

__all__ = ["AuditSettings", "GateInputs", "RollingSettings", "StateFile", "StressSettings"]

_DAY = 86_400_000_000_000
# A day's trading is not lost when the process is: the file is renewed at most this often, and at every kill and stop.
_STATE_EVERY_NS = 1_000_000_000


class StressSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which scenarios ``max_stress_loss`` is measured in.

    Parameters
    ----------
    library : bool
        The built-in ones.
    files : tuple of str
        Files of the user, TOML.
    volatility : bool
        Those drawn from the state of a volatility model, once there are return scenarios: the shipped network for a
        horizon of one day, exponentially weighted volatility for others.
    columns : int
        How many of the latter.
    """

    library: bool = True
    files: tuple[str, ...] = ()
    volatility: bool = True
    columns: int = 16


class RollingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Return scenarios that are collected while running.

    Parameters
    ----------
    step_ns, refresh_ns : int
        Time between two prices, and between two renewals.
    max_gap_ns : int
        A longer silence of an instrument is a gap, which no scenario may span.
    keep : str, optional
        File that the prices are kept in between runs.
    """

    step_ns: int = 1_000_000_000
    refresh_ns: int = 10_000_000_000
    max_gap_ns: int = 5_000_000_000
    keep: str | None = None


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log of every decision; see :class:`tengri_fast.risk.AuditLog`.

    Parameters
    ----------
    path : str
        File, appended to.
    sync : {"order", "100ms", "none"}
        When it is forced to the disk.
    """

    path: str
    sync: str = "100ms"


def _volatility(horizon_ns: int) -> Callable[[], NeuralRiskModel]:
    if horizon_ns == _DAY:
        from tengri_fast.runtime.volatility import load_volatility

        return load_volatility().session
    from tengri_fast.risk.volatility import EwmaVolatility

    return EwmaVolatility


class GateInputs:
    """Prepares and renews the scenarios of one gate.

    Parameters
    ----------
    var : VarSettings or None
        How value at risk is measured.
    path : str or None
        File of return scenarios.
    stress : StressSettings or None
        None when there is no limit on stress losses.
    rolling : RollingSettings or None
        None when scenarios are not collected.
    """

    def __init__(
        self,
        var: VarSettings | None,
        path: str | None,
        stress: StressSettings | None,
        rolling: RollingSettings | None,
    ) -> None:
        self.var = var
        self._path = path
        self._stress = stress
        self._rolling_settings = rolling
        self.rolling: RollingScenarios | None = None
        #: Scenarios as they came, before the method.
        self.scenarios: ScenarioSet | None = None
        #: Stress scenarios that were handed in: names, instruments, returns; they replace those of the settings.
        self.given_stress: tuple[Sequence[str], Sequence[str], Any] | None = None

    def begin(self, state: PortfolioState) -> None:
        """Load what there is into a new portfolio.

        Raises
        ------
        ConfigurationError, DataConversionError
            When scenarios are missing, damaged or do not fit.
        """
        names = state.instrument_ids()
        if self.scenarios is None and self._path is not None:
            self.scenarios = ScenarioSet.from_file(Path(self._path))
        settings = self._rolling_settings
        if settings is not None and self.var is not None and self.rolling is None and names:
            self.rolling = RollingScenarios(
                names,
                horizon_ns=self.var.horizon_ns,
                step_ns=settings.step_ns,
                max_gap_ns=settings.max_gap_ns,
                max_scenarios=self.var.scenarios,
                min_scenarios=min(max(100, self.var.min_scenarios), self.var.scenarios),
                refresh_ns=settings.refresh_ns,
            )
            if settings.keep is not None and Path(settings.keep).exists():
                self.rolling.restore(settings.keep)
                self.scenarios = self.rolling.build()
        if self.scenarios is not None:
            self.use(state, self.scenarios)
        else:
            self.use_stress(state)

    def use(self, state: PortfolioState, scenarios: ScenarioSet) -> None:
        """Use other return scenarios from now on; nothing is changed when they do not fit."""
        var = self.var
        if var is None:
            raise ConfigurationError("`var` must be given when scenarios are loaded, was None")
        made = gate_scenarios(scenarios, var.method, count=var.scenarios, decay=var.decay, seed=var.seed)
        state.set_scenarios(made.scenarios, made.weights)
        self.scenarios = scenarios
        self.use_stress(state)

    def use_stress(self, state: PortfolioState) -> None:
        """Make the stress scenarios anew, after an instrument was added or scenarios were renewed."""
        if self.given_stress is not None:
            state.set_stress(*self.given_stress)
            return
        settings = self._stress
        facts = [fact for name in state.instrument_ids() if (fact := state.facts(name)) is not None]
        if settings is None or not facts:
            return
        model = None
        if settings.volatility and self.scenarios is not None and self.var is not None:
            model = _volatility(self.var.horizon_ns)
        names, returns = gate_stress(
            facts,
            library=settings.library,
            files=settings.files,
            scenarios=self.scenarios if model is not None else None,
            volatility=model,
            columns=settings.columns,
            base_currency=state.base_currency,
        )
        state.set_stress(names, [fact.instrument_id for fact in facts], returns)

    def poll(self, state: PortfolioState, now_ns: int) -> str:
        """Renew collected scenarios when it is time; answers what went wrong, empty when nothing did."""
        rolling = self.rolling
        if rolling is None:
            return ""
        try:
            found = rolling.poll(now_ns)
            if found is not None:
                self.use(state, found)
        except NeuralIntegrationError as error:
            return f"the scenarios could not be renewed: {error}"
        return ""

    def keep(self) -> None:
        """Write the collected prices to their file."""
        settings = self._rolling_settings
        if self.rolling is not None and settings is not None and settings.keep is not None:
            self.rolling.to_file(settings.keep)


class StateFile:
    """Keeps what must survive a restart: switches, and the account's day and peak.

    Parameters
    ----------
    path : path-like
        JSON, written atomically.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._written: bytes | None = None
        self._next_ns = 0

    def load(self, gate: RiskGate) -> None:
        """Restore a gate, when there is a file.

        Raises
        ------
        DataConversionError
            When the file is damaged: starting without the switches that were on would be worse than not starting.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        try:
            state = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise DataConversionError(f"{self.path} must be the state of a gate, is damaged: {error}") from error
        gate.restore(state)

    def save(self, gate: RiskGate, now_ns: int, *, force: bool = False) -> None:
        """Write the state when it has changed; unless forced, at most once a second."""
        if not force and now_ns < self._next_ns:
            return
        self._next_ns = now_ns + _STATE_EVERY_NS
        data = msgspec.json.format(msgspec.json.encode(gate.state()))
        if data == self._written:
            return
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".tmp", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._written = data
