"""A network as the C structures of tengri/nn.h."""

from typing import NoReturn

from tengri_fast.inference.layers import Layer
from tengri_fast.inference.network import Network, Node

class Description:
    """Holds the C structures and every array they point to, for as long as a model is being made from them."""

    def __init__(self, network: Network) -> None: ...
    def __reduce__(self) -> NoReturn: ...

def sizes_of(layer: Layer) -> tuple[int, ...]: ...
def values_of(node: Node) -> list[float]: ...
