"""The smallest useful ONNX graph, y = a @ b in float32, as bytes: a device has no `onnx` to make one with.

Source: onnx.proto (field numbers in the comments). tests/host/test_board_graph.py lets onnx read and check it.
"""

from __future__ import annotations

IR_VERSION, OPSET, FLOAT = 8, 17, 1  # read by onnxruntime since 1.12


def matmul() -> bytes:
    """A ModelProto: inputs `a` (2, 3) and `b` (3, 2), output `y` (2, 2)."""
    node = _text(1, "a") + _text(1, "b") + _text(2, "y") + _text(4, "MatMul")  # NodeProto: input, output, op_type
    values = _bytes(11, _value("a", 2, 3)) + _bytes(11, _value("b", 3, 2)) + _bytes(12, _value("y", 2, 2))
    graph = _bytes(1, node) + _text(2, "probe") + values  # GraphProto: node, name, input, output
    opset = _bytes(8, _text(1, "") + _number(2, OPSET))  # ModelProto: opset_import; OperatorSetIdProto: domain, version
    return _number(1, IR_VERSION) + _bytes(7, graph) + opset  # ModelProto: ir_version, graph


def _value(name: str, *shape: int) -> bytes:
    """ValueInfoProto: name, type -> TypeProto.tensor_type: elem_type, shape -> TensorShapeProto.dim: dim_value."""
    dims = b"".join(_bytes(1, _number(1, size)) for size in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, FLOAT) + _bytes(2, dims)))


def _number(field: int, value: int) -> bytes:
    """A field of protobuf's wire type 0, whose tag and value are below 128 and so are one byte each."""
    assert field < 16, field
    assert value < 128, value
    return bytes([field << 3, value])


def _bytes(field: int, payload: bytes) -> bytes:
    """A field of wire type 2: its length comes first."""
    assert len(payload) < 128, len(payload)
    return bytes([field << 3 | 2, len(payload)]) + payload


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())
