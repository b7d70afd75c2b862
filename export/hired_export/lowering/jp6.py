"""Target `jp6`: the standard opset-24 graphs -> what TensorRT 10.3 takes, opset 20 with DequantizeLinear at 21.

1. Attention -> MatMul and Softmax, split between past and new keys where there is a cache (`attention.py`)
2. RotaryEmbedding, RMSNormalization -> elementary operators (`rotary.py`, `norm.py`)
3. the opset: 20, or 21 where there is an int4 or int8 DequantizeLinear, whose block_size came with 21

What the parser takes is kept as data (`hired_export.operators`) and every graph is checked against it. Whether the
builder finds good tactics only a board can tell.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from hired_export.graphs import drop_unused_inputs
from hired_export.lowering import attention, norm, rotary

OPSET, OPSET_QUANTISED = 20, 21


def lower(model: ir.Model, *, sliding_window: int | None = None) -> None:
    """Rewrites `model` in place. `sliding_window` is in tokens, the current one included."""
    graph = model.graph
    attention.lower_plain(graph)
    attention.lower_cached(graph, sliding_window)
    rotary.lower(graph)
    norm.lower(graph)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_inputs(graph)
    common.TopologicalSortPass()(model)
    for node in graph:
        node.version = None
    quantised = any(node.op_type == "DequantizeLinear" for node in graph)
    graph.opset_imports.clear()
    graph.opset_imports[""] = OPSET_QUANTISED if quantised else OPSET
    model.ir_version = 10
