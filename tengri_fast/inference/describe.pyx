"""A :class:`~tengri_fast.inference.network.Network` as the C structures of tengri/nn.h."""

from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free

cimport numpy as cnp

from tengri_fast.inference.capi cimport (
    TF_MAX_INPUTS,
    TF_OP_ACTIVATION,
    TF_OP_ADD,
    TF_OP_AFFINE,
    TF_OP_ATTENTION,
    TF_OP_CONCAT,
    TF_OP_CONV,
    TF_OP_DENSE,
    TF_OP_GRU,
    TF_OP_LSTM,
    TF_OP_MUL,
    TF_OP_NORM,
    TF_OP_POOL,
    TF_OP_POSITION,
    TF_OP_SLICE,
    tf_matrix,
    tf_node_desc,
)

import numpy as np

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.layers import ACTIVATIONS, NORMS, POOLS, POSITIONS
from tengri_fast.inference.network import FORMATS, SCALES, Network

cnp.import_array()

__all__ = ["Description"]

OPS = {
    "lstm": TF_OP_LSTM,
    "gru": TF_OP_GRU,
    "dense": TF_OP_DENSE,
    "conv": TF_OP_CONV,
    "attention": TF_OP_ATTENTION,
    "norm": TF_OP_NORM,
    "affine": TF_OP_AFFINE,
    "activation": TF_OP_ACTIVATION,
    "add": TF_OP_ADD,
    "mul": TF_OP_MUL,
    "concat": TF_OP_CONCAT,
    "slice": TF_OP_SLICE,
    "pool": TF_OP_POOL,
    "position": TF_OP_POSITION,
}


def sizes_of(layer):
    """``tf_node_desc.size`` of a layer, without the trailing zeros."""
    kind = layer.kind
    if kind == "lstm":
        return (layer.hidden_size,)
    if kind == "gru":
        return (layer.output_size, int(layer.reset_after))
    if kind == "conv":
        return (layer.taps, layer.dilation, layer.stride, layer.groups, layer.levels, layer.level_kernel,
                layer.level_stride)
    if kind == "attention":
        return (layer.heads, layer.kv_heads, layer.window, POSITIONS.index(layer.position))
    if kind == "norm":
        return (NORMS.index(layer.norm),)
    if kind == "slice":
        return (layer.offset,)
    if kind == "pool":
        return (layer.window, POOLS.index(layer.pool), int(layer.partial))
    if kind == "position":
        return (layer.table.shape[0],)
    return ()


def values_of(node):
    """``tf_node_desc.value`` of a node as eight numbers: activation scales, then what the operation takes itself."""
    layer = node.layer
    values = [0.0] * 8
    if node.format in ("int8", "int8a16"):
        for i, key in enumerate(SCALES.get(layer.kind, ())):
            values[i] = node.scales.get(key, 0.0)
    if layer.kind == "attention":
        values[3], values[4] = layer.scale, layer.rope_base
    elif layer.kind == "norm":
        values[3] = layer.epsilon
    if layer.activation == "leaky_relu":
        values[7] = getattr(layer, "slope", 0.01)
    return values


cdef class Description:
    """Holds the C structures and every array they point to, for as long as a model is being made from them.

    Raises
    ------
    ModelLoadingError
        If a size does not fit 32 bits or a number is not finite as float32.
    """

    def __cinit__(self, network):
        if not isinstance(network, Network):
            raise ModelLoadingError(f"`network` must be a Network, was {type(network).__name__}")
        self.kept = []
        cdef int count = len(network.nodes)
        self.nodes = <tf_node_desc *> calloc(count, sizeof(tf_node_desc))
        if self.nodes is NULL:
            raise MemoryError("no memory for the node table")
        self.fill(network, count)

    def __dealloc__(self):
        free(self.nodes)

    def __reduce__(self):
        raise TypeError("a Description cannot be pickled: it holds addresses")

    cdef int fill(self, object source, int count) except -1:
        cdef int i
        for i in range(count):
            node = source.nodes[i]
            try:
                self.fill_node(&self.nodes[i], i, node)
            except OverflowError:
                raise ModelLoadingError(
                    f"layer {i} `{node.layer.name}`: sizes must be below 2**31, were {sizes_of(node.layer)}"
                ) from None
        self.network.nodes = self.nodes
        self.network.count = count
        try:
            self.network.input = source.input_size
        except OverflowError:
            raise ModelLoadingError(f"`input_size` must be below 2**31, was {source.input_size}") from None
        self.network.output = source.output
        return 0

    cdef int fill_node(self, tf_node_desc *node, int index, object source) except -1:
        cdef int i
        cdef float value
        layer = source.layer
        kind = layer.kind
        node.op = OPS[kind]
        node.format = FORMATS.index(source.format)
        node.activation = ACTIVATIONS.index(layer.activation)
        node.width = layer.output_size
        node.inputs = len(source.inputs)
        if node.inputs > TF_MAX_INPUTS:
            raise ModelLoadingError(f"layer {index} `{layer.name}`: `inputs` must be at most 8, were {node.inputs}")
        for i in range(node.inputs):
            node.input[i] = source.inputs[i]
        for i, size in enumerate(sizes_of(layer)):
            node.size[i] = size
        if layer.activation == "softmax":
            node.size[7] = getattr(layer, "softmax_groups", 1)
        for i, number in enumerate(values_of(source)):
            value = number
            if not np.isfinite(value):
                raise ModelLoadingError(
                    f"layer {index} `{layer.name}`: scales and constants must be finite as float32, was {number}"
                )
            node.value[i] = value
        self.matrix(&node.w, source, "w")
        self.matrix(&node.r, source, "r")
        self.matrix(&node.p, source, "projection")
        if kind in ("lstm", "gru", "dense", "conv"):
            node.bias = self.floats(layer.bias)
        if kind == "gru":
            node.rbias = self.floats(layer.recurrent_bias)
        elif kind == "affine":
            node.extra = self.floats(layer.scale)
            node.bias = self.floats(layer.shift)
        elif kind == "norm":
            node.extra = self.floats(layer.gamma)
            node.bias = self.floats(layer.beta)
        elif kind == "attention":
            node.extra = self.floats(layer.slopes)
        elif kind == "position":
            node.extra = self.floats(layer.table)
        return 0

    cdef int matrix(self, tf_matrix *target, object source, str attribute) except -1:
        weights = getattr(source.layer, attribute, None)
        if weights is None:
            return 0
        if source.format in ("int8", "int8a16"):
            held = source.matrices[attribute]
            weights = held.values
            target.scale = self.floats(held.scale)
        self.kept.append(weights)
        target.data = cnp.PyArray_DATA(<cnp.ndarray> weights)
        return 0

    cdef const float *floats(self, object array) except? NULL:
        if array is None:
            return NULL
        self.kept.append(array)
        return <const float *> cnp.PyArray_DATA(<cnp.ndarray> array)
