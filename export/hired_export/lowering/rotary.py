"""RotaryEmbedding (opset 23) on (B, H, S, Dh) -> Gather of cos and sin once a graph, then two halves rotated.

The halves are [0, Dh / 2) and [Dh / 2, Dh), as in transformers' rotate_half; not the interleaved form.
"""

from __future__ import annotations

import onnx_ir as ir

from hired_export.graphs import replace_node
from hired_export.lowering.emit import Emitter


def lower(graph: ir.Graph) -> None:
    """Rewrites every RotaryEmbedding, in place. All of them share position_ids and tables."""
    gathered: dict[tuple[int, int], ir.Value] = {}
    for node in [n for n in graph if n.op_type == "RotaryEmbedding"]:
        x, *tables, position_ids = node.inputs
        assert x is not None
        assert x.shape is not None
        assert "interleaved" not in node.attributes
        emit = Emitter(graph, node)

        def rows(table: ir.Value | None, positions: ir.Value | None = position_ids, emit: Emitter = emit) -> ir.Value:
            """(B, 1, S, Dh / 2)"""
            key = (id(table), id(positions))
            if key not in gathered:
                gathered[key] = emit("Unsqueeze", emit("Gather", table, positions, axis=0), emit.ints(1))
            return gathered[key]

        cos, sin = map(rows, tables)
        head_dim = x.shape[3]
        assert isinstance(head_dim, int)
        half = head_dim // 2
        first = emit("Slice", x, emit.ints(0), emit.ints(half), emit.ints(3), emit.ints(1))
        second = emit("Slice", x, emit.ints(half), emit.ints(head_dim), emit.ints(3), emit.ints(1))
        rotated = [
            emit("Sub", emit("Mul", first, cos), emit("Mul", second, sin)),
            emit("Add", emit("Mul", second, cos), emit("Mul", first, sin)),
        ]
        new = ir.node("Concat", rotated, {"axis": -1})
        replace_node(graph, node, new, [(node.outputs[0], new.outputs[0])])
        graph.remove(node, safe=True)
