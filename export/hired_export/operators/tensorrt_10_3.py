"""What TensorRT 10.3's ONNX parser takes: JetPack 6.1 and 6.2."""

from __future__ import annotations

from hired_export.operators.common import AT_21, COMMON, with_versions
from hired_export.operators.rules import Constant, OneType, Symmetric, Types, Without
from hired_export.operators.table import ANY, FLOATS, NUMBERS, Operator, Table

_OWN = {
    "DequantizeLinear": Operator(
        (10, 13, 19, 21),
        ("int8", "int4"),
        rules=(Types(1, FLOATS), Symmetric(positive_scales=True)),
        board="that the int4 kernels of SM 8.7 take blocks of 128 and 64 (the parser takes any block)",
    ),
    "QuantizeLinear": Operator((10, 13, 19, 21), FLOATS, rules=(Types(2, ("int8", "int4")),)),
    # POW of integers is refused (elementwiseCheck); in a strongly typed network both sides have one type.
    "Pow": Operator((7, 12, 13, 15), FLOATS, rules=(OneType((0, 1)),)),
    # Any `reduction` is refused, "none" too (importer of ScatterND; mended in 10.9, Changelog).
    "ScatterND": Operator((11, 13, 16, 18), NUMBERS, rules=(Without(attributes=("reduction",)),)),
    # Changelog of 10.3: computed axes are taken too. Ours are constants, and so they work before it as well.
    "Slice": Operator((1, 10, 11, 13), ANY, rules=(Constant((3,)),)),
}

TENSORRT_10_3 = Table(
    name="TensorRT 10.3 (JetPack 6.2)",
    opset=20,
    # Not refused and not warned about: ModelImporter::importModel only logs the version, and warns below 7; importers
    # are found by the operator's name. block_size and int4 came with version 21 of these two operators.
    quantised_opset=21,
    operators=dict(sorted({**with_versions(COMMON, AT_21), **_OWN}.items())),
    sources=(
        "types and restrictions: onnx/onnx-tensorrt, branch 10.1-GA, commit 96e781103cfc, docs/operators.md",
        "rules of importers: the same commit, onnxOpImporters.cpp (QuantDequantLinearHelper, ScatterND, TopK, Slice), "
        "importerUtils.cpp (elementwiseCheck)",
        "opset: the same commit, ModelImporter.cpp (importModel); docs/operators.md: 'opset 9 to opset 20'",
        "from 10.1 to 10.3 (NVIDIA/TensorRT v10.3.0 pins onnx-tensorrt 62bdde2a04fc): docs/Changelog.md, as of 10.15, "
        "names for 10.2 error handling, GRU and Squeeze, for 10.3 computed axes of Slice and a newer ScatterElements "
        "plugin, and no operator that came or went",
        "K of TopK: docs/operators.md, '`K` input must be less than 3840'",
    ),
    board=(
        "that a graph which declares opset 21 is parsed without complaint",
        "that the builder has the memory for the LM head's tactics",
        "which of the MatMul and Softmax patterns it fuses to one attention kernel",
    ),
)
