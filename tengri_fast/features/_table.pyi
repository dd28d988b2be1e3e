ENGINE_VERSION: int
PARAMETERS: int
STAGES: int
REGISTRY: int
MAX_LEGS: int
MAX_SOURCES: int
CLOCK_KINDS: dict[str, int]

_Parameters = tuple[tuple[str, str, float, float, float], ...]

def table() -> tuple[tuple[str, str, str, _Parameters, str, str, str, str], ...]: ...
def stages() -> tuple[tuple[str, _Parameters, str, str, str, str], ...]: ...
def lookback(
    kind: int,
    values: tuple[float, ...],
    clock: tuple[int, int, float],
    steps: tuple[tuple[int, tuple[float, ...]], ...],
) -> tuple[int, int] | None: ...
def register(name: str, doubles: int, lookback: int, on_trades: bool, update: int, value: int) -> int: ...
