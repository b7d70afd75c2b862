"""Target `cpu`: the standard opset-24 graphs -> opset 21 with ONNX Runtime's own operators (com.microsoft).

1. RMSNormalization(x, w)            -> SimplifiedLayerNormalization(x, w)
2. Attention over a TensorScatter cache, with its rotary embeddings and head transposes
                                     -> GroupQueryAttention on (B, S, H * Dh), which writes the cache in place
3. Attention without a cache         -> MultiHeadAttention on (T, N + 1, H * Dh)

Afterwards nothing above opset 21 is left, so ONNX Runtime 1.23 (the last for Python 3.10) runs it too. The graph input
`attention_mask` disappears: GroupQueryAttention is causal and takes lengths. What it does not do: quantise (see
`matmul.py`), or accept a graph of another shape than `decoder.py` and `vision.py` make.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from hired_export.graphs import drop_unused_inputs, replace_node
from hired_export.lowering.emit import constant

OPSET = 21
MICROSOFT = "com.microsoft"


def lower(model: ir.Model, *, sliding_window: int | None = None) -> None:
    """Rewrites `model` in place. `sliding_window` is in tokens, the current one included (as transformers counts)."""
    graph = model.graph
    lengths: _Lengths | None = None
    for node in list(graph):
        if node.op_type == "RMSNormalization":
            _lower_norm(graph, node)
        elif node.op_type == "Attention" and _producer(node.inputs[1]).op_type == "TensorScatter":
            lengths = lengths or _Lengths(graph)
            _lower_cached_attention(graph, node, lengths, sliding_window)
        elif node.op_type == "Attention":
            _lower_attention(graph, node)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_inputs(graph)
    common.TopologicalSortPass()(model)
    for node in graph:
        node.version = None
    graph.opset_imports.update({"": OPSET, MICROSOFT: 1})
    model.ir_version = 10  # the version that came with opset 21: older runtimes refuse newer ones


def _producer(value: ir.Value | None) -> ir.Node:
    node = value.producer() if value is not None else None
    assert node is not None, f"{value} is a graph input, an operator's output was expected"
    return node


def _operand(node: ir.Node, op_type: str, index: int = 0) -> ir.Value:
    assert node.op_type == op_type, f"{node.op_type} where {op_type} was expected"
    value = node.inputs[index]
    assert value is not None
    return value


def _lower_norm(graph: ir.Graph, node: ir.Node) -> None:
    attributes = {"axis": -1, "epsilon": node.attributes["epsilon"].as_float(), "stash_type": 1}
    # ONNX Runtime registers this one of its operators in the standard domain.
    new = ir.node("SimplifiedLayerNormalization", list(node.inputs), attributes=attributes)
    replace_node(graph, node, new, [(node.outputs[0], new.outputs[0])])
    graph.remove(node, safe=True)


def _unsplit(value: ir.Value) -> ir.Value:
    """(B, H, S, Dh) as Transpose(Reshape(x)) -> x (B, S, H * Dh)."""
    return _operand(_producer(_operand(_producer(value), "Transpose")), "Reshape")


def _heads(value: ir.Value) -> int:
    heads = value.shape[1] if value.shape is not None else None  # (B, H, S, Dh)
    assert isinstance(heads, int)
    return heads


def _remerged(node: ir.Node) -> tuple[ir.Node, ir.Node]:
    """The Transpose and the Reshape that bring an Attention's output back to (B, S, H * Dh)."""
    ((transpose, _),) = node.outputs[0].uses()
    ((reshape, _),) = transpose.outputs[0].uses()
    assert (transpose.op_type, reshape.op_type) == ("Transpose", "Reshape")
    return transpose, reshape


class _Lengths:
    """seqlens_k (B) and total_sequence_length (), computed once from write_indices and S.

    Padding at the end of a ragged row counts as written: no real query sees it (causal), and the row's next step
    overwrites it. So a row's length before this step is its write index, whatever the others' lengths are.
    """

    def __init__(self, graph: ir.Graph) -> None:
        by_name = {value.name: value for value in graph.inputs}
        write_indices, embeds = by_name["write_indices"], by_name["inputs_embeds"]
        one = constant(graph, np.ones(1, np.int64))
        sequence = ir.node("Shape", [embeds], attributes={"start": 1, "end": 2})
        last = ir.node("Sub", [sequence.outputs[0], one])
        ends = ir.node("Add", [write_indices, last.outputs[0]])
        seqlens = ir.node("Cast", [ends.outputs[0]], attributes={"to": ir.DataType.INT32})
        longest = ir.node("ReduceMax", [ends.outputs[0]], attributes={"keepdims": 0})
        count = ir.node("Add", [longest.outputs[0], one])
        total = ir.node("Cast", [count.outputs[0]], attributes={"to": ir.DataType.INT32})
        graph.insert_before(graph[0], [sequence, last, ends, seqlens, longest, count, total])
        self.seqlens_k, self.total = seqlens.outputs[0], total.outputs[0]
        self.seqlens_k.name, self.total.name = "seqlens_k", "total_sequence_length"


def _rotary(graph: ir.Graph, before: ir.Node, value: ir.Value) -> ir.Value:
    """RotaryEmbedding on (B, H, S, Dh) -> com.microsoft's on (B, S, H * Dh)."""
    node = _producer(value)
    x, cos, sin, position_ids = (_operand(node, "RotaryEmbedding", i) for i in range(4))
    attributes = {"num_heads": _heads(x)}
    new = ir.node("RotaryEmbedding", [_unsplit(x), position_ids, cos, sin], attributes, domain=MICROSOFT)
    graph.insert_before(before, new)
    return new.outputs[0]


def _lower_cached_attention(graph: ir.Graph, node: ir.Node, lengths: _Lengths, window: int | None) -> None:
    scatter_key, scatter_value = _producer(node.inputs[1]), _producer(node.inputs[2])
    past_key, new_key = (_operand(scatter_key, "TensorScatter", i) for i in range(2))
    past_value, new_value = (_operand(scatter_value, "TensorScatter", i) for i in range(2))
    queries = node.inputs[0]
    assert queries is not None
    transpose, reshape = _remerged(node)
    inputs = [
        _rotary(graph, node, queries),
        _rotary(graph, node, new_key),
        _unsplit(new_value),
        past_key,
        past_value,
        lengths.seqlens_k,
        lengths.total,
    ]
    attributes = {"num_heads": _heads(queries), "kv_num_heads": _heads(past_key)}
    if window is not None:
        attributes["local_window_size"] = window
    new = ir.node("GroupQueryAttention", inputs, attributes, domain=MICROSOFT, num_outputs=3)
    pairs = [reshape.outputs[0], scatter_key.outputs[0], scatter_value.outputs[0]]
    replace_node(graph, node, new, list(zip(pairs, new.outputs, strict=True)))
    graph.remove([reshape, transpose, node, scatter_key, scatter_value], safe=True)


def _lower_attention(graph: ir.Graph, node: ir.Node) -> None:
    queries, keys, values = (v for v in node.inputs[:3] if v is not None)
    transpose, reshape = _remerged(node)
    inputs = [_unsplit(value) for value in (queries, keys, values)]
    new = ir.node("MultiHeadAttention", inputs, {"num_heads": _heads(queries)}, domain=MICROSOFT)
    replace_node(graph, node, new, [(reshape.outputs[0], new.outputs[0])])
    graph.remove([reshape, transpose, node], safe=True)
