"""Operators that TensorRT 10.3 and 10.16 take alike, at the versions of opsets 9 to 20.

Types and restrictions are the rows of onnx-tensorrt's docs/operators.md, which say the same for both releases (the
tables name the commits). Versions are ONNX's own (onnx.defs). Only what a language or vision graph of ours uses, or
could be lowered to, is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hired_export.operators.rules import Attribute, Below, CastTo, Constant, Outputs, Without
from hired_export.operators.table import ANY, FLOATS, NUMBERS, Operator

COMMON: dict[str, Operator] = {
    "Abs": Operator((6, 13), NUMBERS),
    "Add": Operator((7, 13, 14), NUMBERS),
    "And": Operator((7,), ("bool",)),
    "ArgMax": Operator((1, 11, 12, 13), NUMBERS),
    "Cast": Operator((9, 13, 19), ANY, rules=(CastTo(ANY),)),
    "Clip": Operator((6, 11, 12, 13), FLOATS),
    "Concat": Operator((4, 11, 13), ANY),
    "Constant": Operator(
        (9, 11, 12, 13, 19), ANY, rules=(Without(attributes=("sparse_value", "value_string", "value_strings")),)
    ),
    "ConstantOfShape": Operator((9, 20), ANY),
    "Conv": Operator((1, 11), FLOATS),
    "Cos": Operator((7,), FLOATS),
    "CumSum": Operator((11, 14), FLOATS, rules=(Constant((1,)),)),
    "Div": Operator((7, 13, 14), NUMBERS),
    "Equal": Operator((7, 11, 13, 19), NUMBERS),
    "Erf": Operator((9, 13), FLOATS),
    "Exp": Operator((6, 13), FLOATS),
    "Expand": Operator((8, 13), ANY),
    "Flatten": Operator((9, 11, 13), ANY),
    "Gather": Operator((1, 11, 13), ANY),
    "GatherElements": Operator((11, 13), ANY),
    "GatherND": Operator((11, 12, 13), ANY),
    "Gelu": Operator((20,), FLOATS),
    "Gemm": Operator((9, 11, 13), FLOATS),
    "Greater": Operator((9, 13), NUMBERS),
    "GreaterOrEqual": Operator((12, 16), NUMBERS),
    "Identity": Operator((1, 13, 14, 16, 19), ANY),
    "LayerNormalization": Operator((17,), FLOATS, rules=(Outputs(1),)),
    "Less": Operator((9, 13), NUMBERS),
    "LessOrEqual": Operator((12, 16), NUMBERS),
    "Log": Operator((6, 13), FLOATS),
    "MatMul": Operator((9, 13), FLOATS),
    "Max": Operator((8, 12, 13), NUMBERS),
    "Min": Operator((8, 12, 13), NUMBERS),
    "Mul": Operator((7, 13, 14), NUMBERS),
    "Neg": Operator((6, 13), NUMBERS),
    "Not": Operator((1,), ("bool",)),
    "Or": Operator((7,), ("bool",)),
    "Pad": Operator((2, 11, 13, 18, 19), NUMBERS, rules=(Constant((3,)),)),
    "Range": Operator((11,), NUMBERS),
    "Reciprocal": Operator((6, 13), FLOATS),
    "ReduceMax": Operator((1, 11, 12, 13, 18, 20), NUMBERS, rules=(Constant((1,)),)),
    "ReduceMean": Operator((1, 11, 13, 18), NUMBERS, rules=(Constant((1,)),)),
    "ReduceSum": Operator((1, 11, 13), NUMBERS, rules=(Constant((1,)),)),
    "Relu": Operator((6, 13, 14), NUMBERS),
    "Reshape": Operator((5, 13, 14, 19), ANY),
    "ScatterElements": Operator(
        (11, 13, 16, 18),
        NUMBERS,
        rules=(Attribute("reduction", ("none",), "none"),),  # any other becomes a plugin (scatterPluginHelper)
    ),
    "Shape": Operator((1, 13, 15, 19), ANY),
    "Sigmoid": Operator((6, 13), FLOATS),
    "Sin": Operator((7,), FLOATS),
    "Softmax": Operator((1, 11, 13), FLOATS),
    "Split": Operator((2, 11, 13, 18), ANY),
    "Sqrt": Operator((6, 13), FLOATS),
    "Squeeze": Operator((1, 11, 13), ANY, rules=(Constant((1,)),)),
    "Sub": Operator((7, 13, 14), NUMBERS),
    "Tanh": Operator((6, 13), FLOATS),
    "Tile": Operator((6, 13), ANY),
    "TopK": Operator((1, 10, 11), NUMBERS, rules=(Attribute("sorted", (1,), 1), Below(1, 3840))),
    "Transpose": Operator((1, 13), ANY),
    "Trilu": Operator((14,), ANY),
    "Unsqueeze": Operator((1, 11, 13), ANY, rules=(Constant((1,)),)),
    "Where": Operator((9, 16), ANY, typed_input=1),
}

_SHAPING = ("Flatten", "Identity", "Pad", "Reshape", "Shape", "Squeeze", "Transpose", "Unsqueeze")
AT_21: dict[str, tuple[int, ...]] = dict.fromkeys(("Cast", "Constant", "ConstantOfShape", *_SHAPING), (21,))
"""Version 21 of these adds types alone (int4, uint4; onnx docs/Changelog.md), which their rows do not list."""


def with_versions(operators: dict[str, Operator], later: Mapping[str, tuple[int, ...]]) -> dict[str, Operator]:
    """The rows with further versions of some of them."""
    return {
        name: replace(operator, versions=operator.versions + later.get(name, ()))
        for name, operator in operators.items()
    }
