"""Adding nodes to a graph: before which node, and constants that are shared by their value. Knows no operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant(graph: ir.Graph, array: NDArray[Any]) -> ir.Value:
    """An initialiser named after its value ("int64.4.0.0.4.16"); every reader of one value shares it."""
    name = constant_name(array)
    value = graph.initializers.get(name)
    if value is None:
        dtype = ir.DataType.from_numpy(array.dtype)
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name), type=ir.TensorType(dtype))
        value.shape = ir.Shape(array.shape)
        graph.register_initializer(value)
    return value


def constant_name(array: NDArray[Any]) -> str:
    return ".".join([str(array.dtype), "x".join(map(str, array.shape)), *map(str, array.reshape(-1).tolist())])


class Emitter:
    """Calls are nodes, put before `before` in order; a call's result is the node's first output."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self.graph, self._before = graph, before

    def __call__(
        self, op_type: str, *inputs: ir.Value | None, dtype: ir.DataType | None = None, **attributes: Any
    ) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes=attributes)
        self.graph.insert_before(self._before, node)
        if dtype is not None:
            node.outputs[0].dtype = dtype
        return node.outputs[0]

    def ints(self, *values: int) -> ir.Value:
        """A constant (n) int64."""
        return constant(self.graph, np.array(values, np.int64))

    def scalar(self, value: float, dtype: ir.DataType) -> ir.Value:
        """A constant () of a float type."""
        return constant(self.graph, np.array(value, dtype.numpy()))

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value itself where it has this type already."""
        return value if value.dtype == dtype else self("Cast", value, dtype=dtype, to=dtype)
