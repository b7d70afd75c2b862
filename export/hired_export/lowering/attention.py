"""Attention (opset 23) -> MatMul and Softmax: as it stands without a cache, and split where a TensorScatter cache is.

Split softmax: scores against the past (B, G, R * S, M) and against the new keys (B, G, R * S, S) are concatenated, go
through one softmax in fp32 and are sliced apart for two value products, which are added; R = H / G query heads share a
kv head. So no whole cache is ever concatenated, and a layer's `present` outputs are the new keys and values alone
(B, G, S, Dh): the runtime writes them behind the past (manifest: `cache: append`).

`attention_mask` (B, 1, S, M) then covers the past alone; what a query sees of the new keys follows from `position_ids`,
causally and within the window. Every query sees at least itself.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hired_export.graphs import replace_node
from hired_export.lowering.emit import Emitter, constant

MASKED = float(np.finfo(np.float32).min) / 2
"""Finite: a row that is masked throughout the past must not become NaN."""


def lower_plain(graph: ir.Graph) -> None:
    """Rewrites every Attention that has neither mask nor cache, in place. Softmax stays in the graph's own type.

    That is the form that TensorRT 10.3 recognises as multi-head attention.
    """
    for node in [n for n in graph if n.op_type == "Attention" and len(n.inputs) == 3]:
        queries, keys, values = node.inputs
        assert queries is not None
        emit = Emitter(graph, node)
        scores = emit("MatMul", _scaled(emit, queries), emit("Transpose", keys, perm=[0, 1, 3, 2]))
        new = ir.node("MatMul", [emit("Softmax", scores, axis=-1), values])
        replace_node(graph, node, new, [(node.outputs[0], new.outputs[0])])
        graph.remove(node, safe=True)


def lower_cached(graph: ir.Graph, window: int | None) -> None:
    """Rewrites every Attention over a TensorScatter cache, in place, and removes TensorScatter.

    Args:
        window: tokens that a query sees, itself included; None for all.
    """
    shared: _Shared | None = None
    for node in [n for n in graph if n.op_type == "Attention"]:
        queries, present_keys, present_values, mask = node.inputs
        past_keys, keys = _scattered(present_keys)
        past_values, values = _scattered(present_values)
        assert queries is not None
        assert queries.dtype is not None
        assert mask is not None
        heads, head_dim = _sizes(queries)
        groups, _ = _sizes(keys)
        shared = shared or _Shared(graph, node, mask, past_keys, heads // groups, window)
        emit = Emitter(graph, node)
        grouped = _scaled(emit, queries)
        if heads != groups:  # heads g R .. g R + R - 1 read kv head g
            grouped = emit("Reshape", grouped, emit.ints(0, groups, -1, head_dim))
        scores = [
            emit("MatMul", grouped, emit("Transpose", each, perm=[0, 1, 3, 2]), dtype=queries.dtype)
            for each in (past_keys, keys)
        ]
        both = emit.cast(emit("Concat", *scores, dtype=queries.dtype, axis=-1), ir.DataType.FLOAT)
        weights = emit("Softmax", emit("Add", both, shared.bias), dtype=ir.DataType.FLOAT, axis=-1)
        weights = emit.cast(weights, queries.dtype)
        axis, one = emit.ints(-1), emit.ints(1)
        of_past = emit("Slice", weights, emit.ints(0), shared.slots, axis, one)
        of_new = emit("Slice", weights, shared.slots, emit.ints(np.iinfo(np.int64).max), axis, one)
        products = [emit("MatMul", of_past, past_values), emit("MatMul", of_new, values)]
        if heads != groups:
            mixed = emit("Add", *products)
            new = ir.node("Reshape", [mixed, emit.ints(0, heads, -1, head_dim)])
        else:
            new = ir.node("Add", products)
        replace_node(graph, node, new, [(node.outputs[0], new.outputs[0])])
        graph.remove(node, safe=True)
        for old, update in ((present_keys, keys), (present_values, values)):
            _give_out(graph, old, update)


class _Shared:
    """What every layer reads alike: M, and the additive mask (B, 1, R * S, M + S) in fp32."""

    def __init__(
        self, graph: ir.Graph, before: ir.Node, mask: ir.Value, past: ir.Value, repeats: int, window: int | None
    ) -> None:
        emit = Emitter(graph, before)
        self.slots = emit("Shape", past, start=2, end=3)
        position_ids = next(value for value in graph.inputs if value.name == "position_ids")
        axes = [emit.ints(axis) for axis in (1, 2)]
        columns = emit("Unsqueeze", position_ids, axes[0])  # (B, 1, S): of the keys
        rows = emit("Unsqueeze", position_ids, axes[1])  # (B, S, 1): of the queries
        seen = emit("GreaterOrEqual", rows, columns)
        if window is not None:
            first = emit("Sub", rows, constant(graph, np.array(window, np.int64)))
            seen = emit("And", seen, emit("Less", first, columns))
        everything = emit("Concat", mask, emit("Unsqueeze", seen, axes[0]), axis=-1)
        zero, masked = (emit.scalar(value, ir.DataType.FLOAT) for value in (0.0, MASKED))
        self.bias = emit("Where", everything, zero, masked)
        if repeats > 1:
            self.bias = emit("Concat", *[self.bias] * repeats, axis=2)


def _scaled(emit: Emitter, queries: ir.Value) -> ir.Value:
    """Attention's default scale, 1 / sqrt(Dh), on the smaller operand of the product."""
    assert queries.dtype is not None
    _, head_dim = _sizes(queries)
    return emit("Mul", queries, emit.scalar(head_dim**-0.5, queries.dtype), dtype=queries.dtype)


def _sizes(value: ir.Value) -> tuple[int, int]:
    """(heads, Dh) of (B, heads, S, Dh)."""
    assert value.shape is not None
    heads, head_dim = value.shape[1], value.shape[3]
    assert isinstance(heads, int)
    assert isinstance(head_dim, int)
    return heads, head_dim


def _scattered(present: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """The past and the update of a TensorScatter."""
    scatter = present.producer() if present is not None else None
    assert scatter is not None
    assert scatter.op_type == "TensorScatter"
    past, update, _ = scatter.inputs
    assert past is not None
    assert update is not None
    return past, update


def _give_out(graph: ir.Graph, old: ir.Value | None, update: ir.Value) -> None:
    """`update` becomes the graph's output in the place of a TensorScatter's, which is removed."""
    assert old is not None
    index = next(i for i, value in enumerate(graph.outputs) if value is old)
    name, scatter = old.name, old.producer()
    graph.outputs[index] = update
    assert scatter is not None
    graph.remove(scatter, safe=True)
    update.name = name
