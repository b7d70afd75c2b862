"""MatMul with a constant weight (in, out) -> DequantizeLinear over a quantised one, then MatMul: for TensorRT.

The weight `W` becomes `W.quantised`, int4 or int8 (in, out), and `W.scales` in the graph's float type:
(in / block, out) in blocks along the input, or (out) for whole channels. There is no zero point, which means 0:
TensorRT takes symmetric int4 alone. ONNX Runtime fuses int4 blocks to MatMulNBits by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from hired_export.graphs import replace_uses
from hired_export.lowering.matmul import placeholder, quantised_name, scales_name
from hired_export.quantisation import Scheme

TYPES = {4: ir.DataType.INT4, 8: ir.DataType.INT8}


def lower(model: ir.Model, scheme_of: Callable[[str], Scheme | None]) -> None:
    """Puts a DequantizeLinear before every MatMul whose weight has a scheme, in place."""
    graph = model.graph
    for node in [n for n in graph if n.op_type == "MatMul"]:
        weight = node.inputs[1]
        assert weight is not None
        scheme = scheme_of(weight.name or "") if weight.is_initializer() else None
        if scheme is None:
            continue
        assert weight.name is not None
        assert weight.shape is not None
        assert weight.dtype is not None
        inputs, outputs = weight.shape.numpy()
        quantised = placeholder(graph, quantised_name(weight.name), TYPES[scheme.bits], (inputs, outputs))
        if scheme.block_size is None:
            shape, attributes = (outputs,), {"axis": 1}
        else:
            shape, attributes = (inputs // scheme.block_size, outputs), {"axis": 0, "block_size": scheme.block_size}
        scales = placeholder(graph, scales_name(weight.name), weight.dtype, shape)
        new = ir.node("DequantizeLinear", [quantised, scales], attributes)
        new.outputs[0].shape, new.outputs[0].dtype = weight.shape, weight.dtype
        graph.insert_before(node, new)
        replace_uses(weight, new.outputs[0])
        del graph.initializers[weight.name]
