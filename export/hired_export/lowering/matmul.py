"""MatMul with a constant weight (in, out) -> com.microsoft MatMulNBits over a quantised one.

The weight `W` becomes two initialisers, `W.quantised` uint8 (out, blocks, bytes) and `W.scales` float32 (out * blocks):
their contents are streamed by `weights.py`. Only names and shapes are known here.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from hired_export.graphs import replace_node
from hired_export.lowering.cpu import MICROSOFT
from hired_export.quantisation import Scheme

INT8_ACCUMULATION = 4
"""MatMulNBits' accuracy_level: activations are quantised to int8 in blocks, products summed in int32."""


def quantised_name(weight: str) -> str:
    return f"{weight}.quantised"


def scales_name(weight: str) -> str:
    return f"{weight}.scales"


def lower(model: ir.Model, scheme_of: Callable[[str], Scheme | None]) -> None:
    """Rewrites every MatMul whose weight has a scheme, in place."""
    graph = model.graph
    for node in [n for n in graph if n.op_type == "MatMul"]:
        x, weight = node.inputs
        assert x is not None
        assert weight is not None
        scheme = scheme_of(weight.name or "") if weight.is_initializer() else None
        if scheme is None:
            continue
        assert weight.name is not None
        assert weight.shape is not None
        inputs, outputs = weight.shape.numpy()
        blocks = scheme.blocks(inputs)
        quantised = placeholder(
            graph, quantised_name(weight.name), ir.DataType.UINT8, (outputs, blocks, scheme.bytes_per_block())
        )
        # One dimension: the form that every version of the operator takes.
        scales = placeholder(graph, scales_name(weight.name), ir.DataType.FLOAT, (outputs * blocks,))
        attributes = {
            "K": inputs,
            "N": outputs,
            "bits": scheme.bits,
            "block_size": scheme.storage_block,
            "accuracy_level": INT8_ACCUMULATION,
        }
        new = ir.node("MatMulNBits", [x, quantised, scales], attributes, domain=MICROSOFT)
        replace_node(graph, node, new, [(node.outputs[0], new.outputs[0])])
        graph.remove(node, safe=True)
        assert not weight.uses(), f"{weight.name} is read by more than one MatMul"
        del graph.initializers[weight.name]
    graph.opset_imports[MICROSOFT] = 1


def placeholder(graph: ir.Graph, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
    """An initialiser without contents, for `weights.py` to fill."""
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
    value.const_value = ir.ExternalTensor("", 0, 0, dtype, shape=ir.Shape(shape), name=name)
    graph.register_initializer(value)
    return value
