from tengri_fast.runtime.engine import NeuralSignal

class DecisionPolicy:
    fee_bps: float
    threshold_bps: float
    exit_bps: float
    min_confidence: float
    max_holding_ns: int
    cooldown_ns: int
    def __init__(
        self,
        *,
        fee_bps: float = 0.0,
        threshold_bps: float = 0.0,
        exit_bps: float = 0.0,
        min_confidence: float = 0.0,
        max_holding_ns: int = 0,
        cooldown_ns: int = 0,
    ) -> None: ...
    def reset(self) -> None: ...
    def action(self, signal: NeuralSignal, position_side: int, order_in_flight: bool = False) -> str: ...
