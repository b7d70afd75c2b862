"""RMSNormalization (opset 23) -> Mul, ReduceMean, Add, Sqrt, Div in fp32, then Mul by the weight in the graph's type.

The order of roundings is transformers' own: the normalised value is rounded before it is scaled.
"""

from __future__ import annotations

import onnx_ir as ir

from hired_export.graphs import replace_node
from hired_export.lowering.emit import Emitter


def lower(graph: ir.Graph) -> None:
    """Rewrites every RMSNormalization over the last axis, in place."""
    for node in [n for n in graph if n.op_type == "RMSNormalization"]:
        x, weight = node.inputs
        assert x is not None
        assert weight is not None
        assert weight.dtype is not None
        emit = Emitter(graph, node)
        wide = emit.cast(x, ir.DataType.FLOAT)
        squares = emit("Mul", wide, wide)
        mean = emit("ReduceMean", squares, emit.ints(-1), keepdims=1)
        epsilon = emit.scalar(node.attributes["epsilon"].as_float(), ir.DataType.FLOAT)
        root = emit("Sqrt", emit("Add", mean, epsilon))
        normal = emit("Div", wide, root, dtype=ir.DataType.FLOAT)
        new = ir.node("Mul", [emit.cast(normal, weight.dtype), weight])
        replace_node(graph, node, new, [(node.outputs[0], new.outputs[0])])
        graph.remove(node, safe=True)
