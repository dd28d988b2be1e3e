from typing import Any

class GateEvents:
    counts_executions: bool
    counts_rejects: bool
    def __init__(self, gate: Any, prices: Any, accounts: Any, orders: Any, add: Any) -> None: ...
