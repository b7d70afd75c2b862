"""What TensorRT 10.16's ONNX parser takes: JetPack 7.2."""

from __future__ import annotations

from hired_export.operators.common import AT_21, COMMON, with_versions
from hired_export.operators.rules import Attribute, Outputs, Rank, Static, Symmetric, Types, Without
from hired_export.operators.table import ANY, FLOATS, NUMBERS, Operator, Table

# Versions of opsets 22 to 24. They add types (bfloat16, float4, float8) which the rows below do not list.
_LATER = {
    **dict.fromkeys(AT_21, (21, 23, 24)),
    **dict.fromkeys(("Conv", "Cos", "Sin"), (22,)),
    "TopK": (24,),
}
_OWN = {
    "Attention": Operator(
        (23, 24),
        FLOATS,
        rules=(
            Rank((0, 1, 2, 3), 4),
            Types(3, ("bool", *FLOATS)),
            Without(inputs=(4, 5, 6), attributes=("softcap", "softmax_precision", "qk_matmul_output_mode")),
            Outputs(1),
        ),
        board="that SM 8.7 has a fused kernel (hired-edge build allows plain ones where it has none)",
    ),
    "DequantizeLinear": Operator(
        (10, 13, 19, 21, 23, 24),
        ("int8", "int4"),
        rules=(Types(1, FLOATS), Symmetric(positive_scales=True)),
    ),
    "Einsum": Operator((12,), FLOATS),
    "Pow": Operator((7, 12, 13, 15), NUMBERS),
    "QuantizeLinear": Operator((10, 13, 19, 21, 23, 24), FLOATS, rules=(Types(2, ("int8", "int4")),)),
    "RMSNormalization": Operator((23,), FLOATS, rules=(Outputs(1),)),
    "RotaryEmbedding": Operator((23,), FLOATS, rules=(Types(3, ("int64",)),)),
    "ScatterND": Operator((11, 13, 16, 18), NUMBERS, rules=(Attribute("reduction", ("none",), "none"),)),
    "Slice": Operator((1, 10, 11, 13), ANY),
    "TensorScatter": Operator(
        (24,),
        FLOATS,
        rules=(Rank((0, 1), 4), Attribute("axis", (-2,), -2), Attribute("mode", ("linear",), "linear"), Static(0, 2)),
    ),
}
# Axes of Pad may be computed since 10.4 (Changelog); those of Squeeze, Unsqueeze and Reduce* may not.
_PAD = {"Pad": Operator((2, 11, 13, 18, 19, 21, 23, 24), NUMBERS)}

TENSORRT_10_16 = Table(
    name="TensorRT 10.16 (JetPack 7.2)",
    opset=24,
    quantised_opset=24,
    operators=dict(sorted({**with_versions(COMMON, _LATER), **_OWN, **_PAD}.items())),
    sources=(
        "types and restrictions: onnx/onnx-tensorrt, commit 6bde6596eca8 (pinned by NVIDIA/TensorRT v10.16), "
        "docs/operators.md: 'opset 9 to opset 24'",
        "rules of importers: the same commit, onnxOpImporters.cpp (Attention, QuantDequantLinearHelper, ScatterND, "
        "Slice); a scale of 0, which it refuses, is taken by TensorRT for RTX 1.7.1",
        "softmax_precision and circular caches: refused by the parser of TensorRT for RTX 1.7.1",
        "the cache's static length: the parser of TensorRT for RTX 1.7.1, 'the KV cache tensor must have a static "
        "sequence length dimension'",
    ),
    board=("that the parser of 10.16 agrees with that of TensorRT for RTX 1.7.1, which the tests run",),
)
