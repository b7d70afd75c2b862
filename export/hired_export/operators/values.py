"""What is known of a graph's values before it runs: types, shapes, constants. By ONNX's own inference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

Dimension = int | str | None


@dataclass(frozen=True)
class Values:
    """Facts about the values of one graph, by name.

    Args:
        types: onnx data type ("float16", "int4").
        shapes: dimensions: a number, a symbol, or None where nothing is known. Values of unknown rank are absent.
        constants: initialisers and outputs of Constant.
    """

    types: dict[str, str]
    shapes: dict[str, tuple[Dimension, ...]]
    constants: dict[str, TensorProto]

    def array(self, name: str) -> NDArray | None:
        """A constant's numbers; None if it is none, or if they lie in another file."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or not _holds_data(tensor):
            return None
        return np.asarray(numpy_helper.to_array(tensor))


def known_values(model: onnx.ModelProto) -> Values:
    """Infers types and shapes. Weights may lie in files of their own: they are not read.

    Raises:
        onnx.shape_inference.InferenceError: the graph contradicts itself.
    """
    graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    types = {name: _type(tensor.data_type) for name, tensor in constants.items()}
    shapes: dict[str, tuple[Dimension, ...]] = {name: tuple(tensor.dims) for name, tensor in constants.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        types[value.name] = _type(tensor.elem_type)
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(_dimension(dimension) for dimension in tensor.shape.dim)
    return Values(types, shapes, constants)


_LONG = {"float": "float32", "double": "float64"}


def _type(number: int) -> str:
    """ "float16" of TensorProto.FLOAT16; "float32" of FLOAT."""
    name = helper.tensor_dtype_to_string(number).rpartition(".")[2].lower()
    return _LONG.get(name, name)


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> Dimension:
    kind = dimension.WhichOneof("value")
    return None if kind is None else getattr(dimension, kind)


def _holds_data(tensor: TensorProto) -> bool:
    lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    return bool(tensor.raw_data) or any(lists) or 0 in tensor.dims
