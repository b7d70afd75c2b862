"""Target `cpu`, `--vision-precision int8`: products of the lowered vision graph with int8 weights, a scale a token.

    scale = max |x| of a token / 127        q = round(x / scale) + 128, uint8
    MatMul(x, W) -> MatMulIntegerToFloat(q, W.quantised, W.scales) * scale

Scales are of this token alone: an outlier costs its own token only, a tile's features do not depend on its neighbours,
and nothing is calibrated. What an activation function gives is hardly negative: the zero point is low there, and most
of the 256 steps are above it. Weights are int8 a channel, with `Scheme.pairs`: without VNNI, x86 adds two products of
bytes in 16 bits, which would saturate (measured: the error of the demonstration model's features was 5 times as large).

What stays in float32: the patch embedding, norms, softmax and attention, residuals, and the CLS rows that HiRED reads
with the query and key weights of their layers. What it does not do: anything about channels with outliers, which share
a token's scale with all the others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from hired_export.graphs import replace_node
from hired_export.lowering.cpu import MICROSOFT
from hired_export.lowering.emit import Emitter, constant
from hired_export.lowering.matmul import placeholder, quantised_name, scales_name
from hired_export.quantisation import Scheme
from hired_export.vision import VisionShape

SCHEME = Scheme(8, None, pairs=True)
PRODUCT = "MatMulIntegerToFloat"


class Bytes(NamedTuple):
    """How a token's floats become bytes. `least` is the lowest value that can come, None for any."""

    zero_point: int
    steps: int
    """From zero to the largest value."""
    least: float | None


ANY = Bytes(128, 127, None)
ACTIVATED = Bytes(32, 223, -0.171)
BOUNDED = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu")
"""Activation functions (transformers' names) whose values are `ACTIVATED.least` and more: the minima are -0.170 (gelu,
both forms), -0.164 (x sigmoid(1.702 x)) and 0."""
_SMALLEST = 1e-20
"""In place of a row of zeros' largest value."""


def lower(model: ir.Model, shape: VisionShape) -> None:
    """Rewrites `model`, which `cpu.lower` has been through, in place; contents of the weights: `weights.py`."""
    graph = model.graph
    quantised: dict[str, tuple[ir.Value, ir.Value, ir.Value]] = {}
    for node in [n for n in graph if n.op_type == "MatMul"]:
        x, weight = node.inputs
        assert x is not None
        assert weight is not None
        if not weight.is_initializer() or _is_of_cls_row(node):
            continue
        assert weight.name is not None
        assert x.name is not None
        if x.name not in quantised:  # queries, keys and values are made of the same tokens
            quantised[x.name] = _quantise(Emitter(graph, node), x, _bytes(weight.name, shape))
        _multiply(graph, node, weight, *quantised[x.name])
        if not weight.uses():
            del graph.initializers[weight.name]


def _is_of_cls_row(node: ir.Node) -> bool:
    """A query or key projection that no attention of all tokens reads."""
    assert node.inputs[1] is not None
    if not str(node.inputs[1].name).endswith(("q_proj.weight", "k_proj.weight")):
        return False
    value = node.outputs[0]
    while True:  # past the bias, and the norm over queries and keys, where a tower has them
        users = [user for user, _ in value.uses()]
        if len(users) != 1 or users[0].op_type not in ("Add", "SimplifiedLayerNormalization"):
            return all(user.op_type != "MultiHeadAttention" for user in users)
        value = users[0].outputs[0]


def _bytes(weight: str, shape: VisionShape) -> Bytes:
    """Of what is multiplied with a weight."""
    behind = {"mlp.fc2.weight": shape.activation, "multi_modal_projector.linear_2.weight": shape.projector_activation}
    activation = next((name for end, name in behind.items() if weight.endswith(end)), None)
    return ACTIVATED if activation in BOUNDED else ANY


def _quantise(emit: Emitter, x: ir.Value, into: Bytes) -> tuple[ir.Value, ir.Value, ir.Value]:
    """x (T, N, K) -> bytes (T, N, K), the scale of each token (T, N, 1), and the zero point."""
    assert x.dtype is not None
    zero_point = constant(emit.graph, np.array(into.zero_point, np.uint8))
    steps, one = emit.scalar(into.steps, x.dtype), emit.scalar(1, x.dtype)
    last = emit.ints(-1)
    highest = emit("ReduceMax", x, last)
    if into.least is None:
        negated = emit("Neg", emit("ReduceMin", x, last))
        largest = emit("Max", highest, negated, emit.scalar(_SMALLEST, x.dtype))
    else:  # no finer than what leaves the lowest value room below the zero point
        largest = emit("Max", highest, emit.scalar(-into.least * into.steps / into.zero_point, x.dtype))
    scaled = emit("Mul", x, emit("Div", steps, largest))
    return emit("QuantizeLinear", scaled, one, zero_point), emit("Div", largest, steps), zero_point


def _multiply(
    graph: ir.Graph, node: ir.Node, weight: ir.Value, x: ir.Value, scale: ir.Value, zero_point: ir.Value
) -> None:
    assert weight.name is not None
    assert weight.shape is not None
    assert weight.dtype is not None
    inputs, outputs = weight.shape.numpy()
    integers = placeholder(graph, quantised_name(weight.name), ir.DataType.INT8, (inputs, outputs))
    scales = placeholder(graph, scales_name(weight.name), weight.dtype, (outputs,))
    one = constant(graph, np.array(1, weight.dtype.numpy()))
    product = ir.node(PRODUCT, [x, integers, one, scales, zero_point], domain=MICROSOFT)
    graph.insert_before(node, product)
    new = ir.node("Mul", [product.outputs[0], scale])
    replace_node(graph, node, new, [(node.outputs[0], new.outputs[0])])
    graph.remove(node, safe=True)
