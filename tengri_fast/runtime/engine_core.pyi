from tengri_fast.features.store import FeatureStore
from tengri_fast.runtime.latency import LatencyHistogram
from tengri_fast.runtime.model_spec import ModelBundle
from tengri_fast.runtime.signal import NeuralSignal

CLOCKS: dict[str, int]
KINDS: dict[str, int]

class EngineCore:
    capacity: int
    count: int
    signal: NeuralSignal
    latency: LatencyHistogram
    bundle: ModelBundle
    listeners: list[str]
    store: FeatureStore | None
    stamp: bool
    def __init__(self, bundle: ModelBundle, capacity: int = 16, store: FeatureStore | None = None) -> None: ...

class Block: ...
