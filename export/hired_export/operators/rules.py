"""The restrictions that rows of an operator list carry. Each is one class; a table composes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from hired_export.operators.values import Values


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> object:
    """An attribute's value; bytes as text."""
    for each in node.attribute:
        if each.name == name:
            value = helper.get_attribute_value(each)
            return value.decode() if isinstance(value, bytes) else value
    return default


def given(node: onnx.NodeProto, index: int) -> str | None:
    """The name of an input that is there."""
    return node.input[index] if index < len(node.input) and node.input[index] else None


@dataclass(frozen=True)
class Constant:
    """These inputs are constants of the graph."""

    inputs: tuple[int, ...]

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        for index in self.inputs:
            name = given(node, index)
            if name is not None and name not in values.constants:
                return f"input {index} ({name}) is computed; it must be a constant"
        return None


@dataclass(frozen=True)
class Without:
    """These inputs and attributes are not there."""

    inputs: tuple[int, ...] = ()
    attributes: tuple[str, ...] = ()

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        for index in self.inputs:
            if given(node, index) is not None:
                return f"input {index} ({node.input[index]}) is not taken"
        names = {each.name for each in node.attribute}
        return next((f"the attribute {name} is not taken" for name in self.attributes if name in names), None)


@dataclass(frozen=True)
class Attribute:
    """An attribute has one of these values; `default` is the operator's own."""

    name: str
    allowed: tuple[object, ...]
    default: object

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        value = attribute(node, self.name, self.default)
        allowed = " or ".join(map(str, self.allowed))
        return None if value in self.allowed else f"{self.name} is {value}; it must be {allowed}"


@dataclass(frozen=True)
class Outputs:
    """At most so many outputs."""

    most: int

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        used = [name for name in node.output[self.most :] if name]
        return f"output {used[0]} is not given; the first {self.most} of the outputs are" if used else None


@dataclass(frozen=True)
class Rank:
    """These inputs have this rank."""

    inputs: tuple[int, ...]
    rank: int

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        for name in filter(None, (given(node, index) for index in self.inputs)):
            shape = values.shapes.get(name)
            if shape is None or len(shape) != self.rank:
                return f"{name} has the shape {shape}; it must have {self.rank} dimensions"
        return None


@dataclass(frozen=True)
class Static:
    """This dimension of an input is a number in the graph."""

    input: int
    axis: int

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        shape = values.shapes.get(node.input[self.input], ())
        if len(shape) > self.axis and isinstance(shape[self.axis], int):
            return None
        return f"dimension {self.axis} of {node.input[self.input]} {shape} is not static"


@dataclass(frozen=True)
class Types:
    """An input that is there has one of these types."""

    input: int
    types: tuple[str, ...]

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        name = given(node, self.input)
        if name is None or values.types.get(name) in self.types:
            return None
        return f"{name} is {values.types.get(name)}; it must be {' or '.join(self.types)}"


@dataclass(frozen=True)
class OneType:
    """These inputs have one type."""

    inputs: tuple[int, ...]

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        types = {values.types.get(name) for name in filter(None, (given(node, index) for index in self.inputs))}
        return (
            f"its inputs are {' and '.join(sorted(map(str, types)))}; they must be of one type"
            if len(types) > 1
            else None
        )


@dataclass(frozen=True)
class CastTo:
    """`to` is one of these types."""

    types: tuple[str, ...]

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        made = values.types.get(node.output[0])
        return None if made in self.types else f"to {made}; it must be {' or '.join(self.types)}"


@dataclass(frozen=True)
class Below:
    """A constant input is smaller than this; a computed one only shows at run time."""

    input: int
    limit: int

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        array = values.array(node.input[self.input])
        if array is None or int(array.max()) < self.limit:
            return None
        return f"{node.input[self.input]} is {int(array.max())}; it must be below {self.limit}"


@dataclass(frozen=True)
class Symmetric:
    """Quantised weights: zero point 0, scales above 0 where the parser says so, whole blocks along one axis.

    TensorRT ignores `block_size` and takes the ratio of the shapes instead: both must be the same.
    """

    positive_scales: bool

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        zero = given(node, 2)
        if zero is not None:
            array = values.array(zero)
            if array is None or np.any(array.astype(np.float32)):
                return f"the zero point {zero} is not a constant 0"
        scales = values.array(node.input[1])
        if self.positive_scales and scales is not None and not np.all(scales.astype(np.float32) > 0):
            return f"{node.input[1]} holds a scale that is not above 0"
        return self._blocks(node, values.shapes.get(node.input[0]), values.shapes.get(node.input[1]), values)

    def _blocks(self, node: onnx.NodeProto, shape: tuple | None, scales: tuple | None, values: Values) -> str | None:
        if shape is None or scales is None:
            return f"the shape of {node.input[0]} or {node.input[1]} is unknown"
        if values.types.get(node.input[0]) == "int4" and (not isinstance(shape[-1], int) or shape[-1] % 2):
            return f"{node.input[0]} {shape} is int4 with an odd last dimension"
        block, axis = (int(str(attribute(node, name, default))) for name, default in (("block_size", 0), ("axis", 1)))
        if not block:
            return None
        axis %= len(shape)
        expected = tuple(
            size // block if i == axis and isinstance(size, int) and size % block == 0 else size
            for i, size in enumerate(shape)
        )
        if scales == expected != shape:
            return None
        return f"blocks of {block} along axis {axis} of {shape} do not give scales {scales}"
