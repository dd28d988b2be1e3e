"""A configuration becomes a live NautilusTrader node: data clients, sandbox execution, risk gate and strategy.

Building a node opens no connection; NautilusTrader connects when it runs. So a dry run builds what can be built, tells
what would connect, and takes it down again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.adapters.sandbox.factory import SandboxLiveExecClientFactory
from nautilus_trader.common import Environment
from nautilus_trader.config import LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.identifiers import InstrumentId, TraderId
from nautilus_trader.persistence.config import DataCatalogConfig

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.backtest_config import data_file, gate_config, model_of, scenarios_of, sizing_of
from tengri_fast.nautilus.clients import ClientPlan, plan_clients
from tengri_fast.nautilus.config import TengriNeuralConfig
from tengri_fast.nautilus.gate import NeuralRiskGate
from tengri_fast.nautilus.strategy import TengriNeuralStrategy
from tengri_fast.runtime.durations import format_duration
from tengri_fast.runtime.model_spec import ModelBundle

if TYPE_CHECKING:
    from tengri_fast.runtime.config import TengriConfig

__all__ = ["NodePlan", "build_node", "plan_node"]

_KILL_POLL_MS = 100
_STREAMS = {"quote": ("quotes",), "trade": ("quotes", "trades"), "depth": ("depth",), "bar": ("quotes", "bars")}


@dataclass(frozen=True)
class NodePlan:
    """What a node would do.

    Attributes
    ----------
    clients : tuple of ClientPlan
        Data clients, those that lack a key among them.
    venue, account_type, balance : str
        Of the sandbox that executes orders.
    limits : tuple of str
        Names of the limits that the risk gate enforces.
    instrument : str
        What the strategy trades.
    model : str
        Identifier of its model.
    subscriptions : tuple of str
        Kinds of live data that the strategy listens to.
    requests : tuple of (str, str)
        Each request for history, and who answers it.
    external : tuple of (str, str)
        Each external input of the model, and what feeds it.
    """

    clients: tuple[ClientPlan, ...]
    venue: str
    account_type: str
    balance: str
    limits: tuple[str, ...]
    instrument: str
    model: str
    subscriptions: tuple[str, ...]
    requests: tuple[tuple[str, str], ...]
    external: tuple[tuple[str, str], ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the required variables of the environment that are not set."""
        return tuple(dict.fromkeys(name for client in self.clients for name in client.missing))

    @property
    def client(self) -> ClientPlan:
        """The client that serves the traded instrument."""
        return next(client for client in self.clients if self.instrument in client.instruments)


def plan_node(config: TengriConfig, environ: Mapping[str, str] | None = None) -> NodePlan:
    """What the node of a configuration would do; opens nothing and makes no client.

    Parameters
    ----------
    config : TengriConfig
        With ``[data_sources]``.
    environ : mapping, optional
        Where keys are looked up; the process' environment otherwise.

    Raises
    ------
    ConfigurationError
        Names the key that is wrong.
    MissingExtraError
        A source needs a package that is not installed.
    ModelLoadingError
        The model cannot be loaded.
    """
    clients = plan_clients(config, environ)
    _, bundle = model_of(config)
    return _plan(config, clients, bundle)


def _plan(config: TengriConfig, clients: tuple[ClientPlan, ...], bundle: ModelBundle) -> NodePlan:
    streams = _streams(bundle)
    if "bars" in streams:
        raise config.error(
            "neural.models[0].config", "must not read bars in `tengri node`, which subscribes to ticks only"
        )
    section = config.node
    traded = config.strategy.instrument_id
    serving = next(client for client in clients if traded in client.instruments)
    return NodePlan(
        clients=clients,
        venue=InstrumentId.from_str(traded).venue.value,
        account_type=section.account_type,
        balance=f"{section.starting_balance.amount:f} {_currency(config)}",
        limits=config.risk.limits,
        instrument=traded,
        model=bundle.spec.id,
        subscriptions=streams,
        requests=_requests(config, serving, streams),
        external=tuple((name, _feeder(config, name)) for name in config.neural.features.external_data),
    )


def _streams(bundle: ModelBundle) -> tuple[str, ...]:
    found = dict.fromkeys(_STREAMS[bundle.spec.inputs.clock])
    for spec in bundle.plan.specs:
        if spec.info.needs.startswith("trade"):
            found["trades"] = None
        elif spec.info.needs.startswith("depth") or spec.params.get("levels", 1) not in (0, 1):
            found["depth"] = None
    return tuple(found)


def _requests(config: TengriConfig, serving: ClientPlan, streams: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    depth = config.data_sources.historical_depth
    if not depth:
        return ()
    catalog = config.data_sources.catalog
    answers = {
        "binance": {"trades": "the latest 1,000 only"},
        "databento": dict.fromkeys(("quotes", "trades", "depth"), ""),
    }.get(serving.source, {})
    found = []
    for stream in streams:
        who = []
        if catalog is not None and catalog.enabled:
            who.append(f"catalog {catalog.path}")
        if stream in answers:
            who.append(serving.name + (f" ({answers[stream]})" if answers[stream] else ""))
        nobody = f"nobody: {serving.name} has no past {stream}, and data_sources.catalog is not configured"
        found.append(
            (f"{stream} of {config.strategy.instrument_id}, {format_duration(depth)}", ", then ".join(who) or nobody)
        )
    return tuple(found)


def _feeder(config: TengriConfig, name: str) -> str:
    if name.startswith("PolymarketOdds") and "polymarket" in config.data_sources.enabled:
        return "quotes of the POLYMARKET client"
    return "no live source: absent, which the model sees as such"


def _currency(config: TengriConfig) -> str:
    currency = config.node.starting_balance.currency
    if currency is None:
        raise config.error("node.starting_balance", 'must name its currency, such as "100000 USDT"')
    return currency


def build_node(
    config: TengriConfig,
    *,
    environ: Mapping[str, str] | None = None,
    partial: bool = False,
    log_level: str | None = "INFO",
    loop: asyncio.AbstractEventLoop | None = None,
) -> tuple[TradingNode, NodePlan]:
    """Build the node of a configuration; it connects when it runs.

    Parameters
    ----------
    config : TengriConfig
        With ``[data_sources]``.
    environ : mapping, optional
        Where keys are looked up; the process' environment otherwise.
    partial : bool, default False
        Leave out clients that lack a key instead of refusing.
    log_level : str, optional
        Of NautilusTrader's log on standard output; None for no log at all.
    loop : AbstractEventLoop, optional
        Where it will run.

    Returns
    -------
    tuple of (TradingNode, NodePlan)
        The caller disposes of the node.

    Raises
    ------
    ConfigurationError
        As in :func:`plan_node`, and when a key is missing and `partial` is not set: the message names the variable.
    """
    clients = plan_clients(config, environ)
    model_path, bundle = model_of(config)
    plan = _plan(config, clients, bundle)
    if plan.missing and not partial:
        names = ", ".join(plan.missing)
        raise ConfigurationError(
            f"the environment must have {names}, which the sources of [data_sources] need: not set"
        )
    ready = {client.name: client for client in clients if not client.missing}
    sources = config.data_sources
    catalogs = []
    if sources.catalog is not None and sources.catalog.enabled:
        catalogs.append(
            DataCatalogConfig(path=str(data_file(config, sources.catalog.path, "data_sources.catalog.path")))
        )
    elif sources.historical_depth and not partial and all(who.startswith("nobody") for _, who in plan.requests):
        raise config.error("data_sources", f"asks for history that nobody answers ({plan.requests[0][1]})")
    logging = LoggingConfig(bypass_logging=True) if log_level is None else LoggingConfig(log_level=log_level)
    node = TradingNode(
        config=TradingNodeConfig(
            environment=Environment.SANDBOX,
            trader_id=TraderId(config.node.trader_id),
            logging=logging,
            catalogs=catalogs,
            data_clients={name: client.config for name, client in ready.items()},
            exec_clients={plan.venue: _sandbox(config, plan)},
        ),
        loop=loop,
    )
    for name, client in ready.items():
        node.add_data_client_factory(name, client.factory)
    node.add_exec_client_factory(plan.venue, SandboxLiveExecClientFactory)
    node.trader.add_actor(_gate(config, plan))
    node.trader.add_strategy(TengriNeuralStrategy(_strategy(config, str(model_path)), bundle=bundle))
    node.build()
    return node, plan


def _sandbox(config: TengriConfig, plan: NodePlan) -> SandboxExecutionClientConfig:
    return SandboxExecutionClientConfig(
        venue=plan.venue,
        starting_balances=[plan.balance],
        account_type=plan.account_type,
        oms_type="NETTING",
        book_type="L2_MBP" if plan.subscriptions == ("depth",) else "L1_MBP",
    )


def _gate(config: TengriConfig, plan: NodePlan) -> NeuralRiskGate:
    # The instrument itself is known only when the venue has told it; its name is enough here.
    named = SimpleNamespace(id=InstrumentId.from_str(plan.instrument))
    prices = ("depth",) if "quotes" not in plan.subscriptions else ("quotes",)
    settings: Any = gate_config(config, named, prices, _currency(config), kill_poll_ms=_KILL_POLL_MS)
    gate = NeuralRiskGate(settings)
    if settings.var is not None:
        scenarios = scenarios_of(config, named, settings.var)
        if scenarios is not None:
            gate.load_scenarios(scenarios)
    return gate


def _strategy(config: TengriConfig, model: str) -> TengriNeuralConfig:
    policy = config.policy
    return TengriNeuralConfig(
        strategy_id=config.strategy.strategy_id,
        order_id_tag=config.strategy.order_id_tag,
        instrument_id=config.strategy.instrument_id,
        trade_size=config.strategy.trade_size,
        sizing=sizing_of(config),
        model=model,
        threshold_bps=policy.threshold_bps,
        exit_bps=policy.exit_bps,
        # The file gives the fee of one fill, the strategy wants that of a round trip; None takes the instrument's.
        fee_bps=None if policy.fee_bps is None else 2.0 * policy.fee_bps,
        min_confidence=policy.min_confidence,
        max_holding=policy.max_holding,
        cooldown=policy.cooldown,
        warm_up=config.neural.inference.model_warm_up_period,
        history=config.data_sources.historical_depth,
        history_timeout=config.node.history_timeout,
    )
