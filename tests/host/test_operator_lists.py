"""The operator lists: what `check_operators` refuses, and the newest list held against NVIDIA's own parser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper

from hired_edge.errors import ExportError
from hired_export.operators import TENSORRT_10_3, TENSORRT_10_16, check_operators
from hired_export.operators.table import Table
from hired_runtime.trt import module
from tests.host.small_graphs import attention_graph, constant, model, product_graph

TABLES = (TENSORRT_10_3, TENSORRT_10_16)
FLOAT16, FLOAT, BOOL, INT64 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
INTS = np.int64


@dataclass(frozen=True)
class Sample:
    """One node: inputs that are computed (type and shape) or constant, attributes, the outputs' types."""

    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[int, ...] = (FLOAT16,)

    def graph(self, operator: str, opset: int) -> onnx.ModelProto:
        names, inputs, constants = [], {}, []
        for i, each in enumerate(self.inputs):
            names.append(f"in{i}" if each is not None else "")
            if isinstance(each, np.ndarray):
                constants.append(constant(f"in{i}", each))
            elif each is not None:
                inputs[f"in{i}"] = each
        outputs = {f"out{i}": (type, None) for i, type in enumerate(self.outputs)}
        node = helper.make_node(operator, names, list(outputs), name="it", **self.attributes)
        return model([node], inputs, outputs, constants, opset)


def a(*shape: int | str, type: int = FLOAT16) -> tuple[int, list[int | str]]:
    return type, list(shape)


X = a("n", 4, 8)
FLAG = a("n", 4, 8, type=BOOL)
INDEX = a("n", type=INT64)
ints = lambda *values: np.array(values, INTS)  # noqa: E731
ONE = Sample((X,))
TWO = Sample((X, X))
COMPARED = Sample((X, X), outputs=(BOOL,))
CACHE = a("n", 2, 64, 32)

SAMPLES: dict[str, Sample] = {
    **dict.fromkeys(("Abs", "Cos", "Erf", "Exp", "Gelu", "Identity", "Log", "Neg", "Reciprocal"), ONE),
    **dict.fromkeys(("Relu", "Sigmoid", "Sin", "Softmax", "Sqrt", "Tanh"), ONE),
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"), TWO),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), COMPARED),
    "MatMul": Sample((X, a("n", 8, 4))),
    "And": Sample((FLAG, FLAG), outputs=(BOOL,)),
    "Or": Sample((FLAG, FLAG), outputs=(BOOL,)),
    "Not": Sample((FLAG,), outputs=(BOOL,)),
    "ArgMax": Sample((X,), {"axis": -1}, (INT64,)),
    "Attention": Sample((CACHE, CACHE, CACHE, a("n", 1, 64, 64, type=BOOL))),
    "Cast": Sample((X,), {"to": FLOAT}, (FLOAT,)),
    "Clip": Sample((X, np.array(0, np.float16), np.array(1, np.float16))),
    "Concat": Sample((X, X), {"axis": 1}),
    "Constant": Sample((), {"value": constant("", np.ones(3, np.float16))}),
    "ConstantOfShape": Sample((ints(2, 3),), {"value": constant("", np.ones(1, np.float16))}),
    "Conv": Sample((a("n", 3, 8, 8), np.ones((4, 3, 2, 2), np.float16))),
    "CumSum": Sample((X, np.array(1, INTS))),
    "DequantizeLinear": Sample((np.ones((4, 8), np.int8), np.ones(8, np.float16)), {"axis": 1}),
    "Einsum": Sample((X, X), {"equation": "bij,bkj->bik"}),
    "Expand": Sample((a(1, 4, 8), ints(3, 4, 8))),
    "Flatten": Sample((X,)),
    "Gather": Sample((X, INDEX), {"axis": 1}),
    "GatherElements": Sample((X, a("n", 4, 8, type=INT64)), {"axis": 1}),
    "GatherND": Sample((X, a("n", 1, type=INT64)), {"batch_dims": 1}),
    "Gemm": Sample((a("n", 8), np.ones((8, 4), np.float16))),
    "LayerNormalization": Sample((X, np.ones(8, np.float16), np.ones(8, np.float16))),
    "Pad": Sample((X, ints(0, 0, 0, 0, 0, 1))),
    "QuantizeLinear": Sample((X, np.array(0.5, np.float16), np.array(0, np.int8)), outputs=(TensorProto.INT8,)),
    "RMSNormalization": Sample((X, np.ones(8, np.float16))),
    "Range": Sample((a(type=INT64), a(type=INT64), a(type=INT64)), outputs=(INT64,)),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), Sample((X, ints(-1)))),
    "Reshape": Sample((X, ints(0, -1))),
    "RotaryEmbedding": Sample(
        (CACHE, np.ones((99, 16), np.float16), np.ones((99, 16), np.float16), a("n", 64, type=INT64))
    ),
    "ScatterElements": Sample((X, a("n", 4, 8, type=INT64), X), {"axis": 1}),
    "ScatterND": Sample((X, a("n", 1, type=INT64), X)),
    "Shape": Sample((X,), {"start": 0, "end": 1}, (INT64,)),
    "Slice": Sample((X, ints(0), ints(2), ints(1), ints(1))),
    "Split": Sample((X, ints(2, 2)), {"axis": 1}, (FLOAT16, FLOAT16)),
    "Squeeze": Sample((a("n", 1, 8), ints(1))),
    "TensorScatter": Sample((CACHE, a("n", 2, "s", 32), INDEX)),
    "Tile": Sample((X, ints(1, 2, 1))),
    "TopK": Sample((X, ints(3)), outputs=(FLOAT16, INT64)),
    "Transpose": Sample((X,), {"perm": [0, 2, 1]}),
    "Trilu": Sample((X,)),
    "Unsqueeze": Sample((X, ints(1))),
    "Where": Sample((FLAG, X, X)),
}
RTX = module.load("tensorrt_rtx")


def parses(graph: onnx.ModelProto) -> str:
    """What NVIDIA's parser says against a graph; empty if nothing."""
    logger = RTX.trt.Logger(RTX.trt.Logger.INTERNAL_ERROR)
    builder = RTX.trt.Builder(logger)
    network = module.create_network(RTX, builder)
    parser = RTX.trt.OnnxParser(network, logger)
    if parser.parse(graph.SerializeToString()):
        return ""
    return "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or "refused"


@pytest.mark.parametrize("operator", sorted(TENSORRT_10_16.operators))
def test_the_newest_list_claims_nothing_that_nvidias_parser_refuses(operator: str) -> None:
    graph = SAMPLES[operator].graph(operator, TENSORRT_10_16.opset)
    before = graph.SerializeToString()
    check_operators(graph, TENSORRT_10_16)
    assert graph.SerializeToString() == before
    assert parses(graph) == ""


def changed(operator: str, **changes: Any) -> Callable[[], onnx.ModelProto]:
    """A sample with other inputs (by number) or attributes."""

    def make() -> onnx.ModelProto:
        sample = SAMPLES[operator]
        inputs = dict(enumerate(sample.inputs)) | {int(k[2:]): v for k, v in changes.items() if k.startswith("in")}
        attributes = sample.attributes | {k: v for k, v in changes.items() if not k.startswith("in")}
        ordered = tuple(inputs.get(i) for i in range(max(inputs) + 1))
        return Sample(ordered, attributes, sample.outputs).graph(operator, 24)

    return make


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a symbolic cache": (lambda: attention_graph(2, slots="m"), "not static"),
    "a cache of rank 3": (changed("TensorScatter", in0=a("n", 64, 32), in1=a("n", "s", 32)), "4 dimensions"),
    "a circular cache": (changed("TensorScatter", mode="circular"), "mode is circular"),
    "a softcap": (changed("Attention", softcap=30.0), "softcap"),
    "a softmax precision": (changed("Attention", softmax_precision=1), "softmax_precision"),
    "past keys and values": (changed("Attention", in4=CACHE, in5=CACHE), "input 4"),
    "a zero point of 1": (lambda: product_graph("zero-point"), "zero point"),
    "TopK of 3840": (changed("TopK", in0=a("n", 4096), in1=ints(3840)), "below 3840"),
    "TopK unsorted": (changed("TopK", sorted=0), "sorted is 0"),
    "ScatterND with reduction": (changed("ScatterND", reduction="add"), "reduction is add"),
    "computed axes of a sum": (changed("ReduceSum", in1=INDEX), "must be a constant"),
    "computed axes of Unsqueeze": (changed("Unsqueeze", in1=a(1, type=INT64)), "must be a constant"),
    "another domain": (lambda: product_graph("MatMulNBits"), "com.microsoft"),
}


@pytest.mark.parametrize(("graph", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_each_restriction_is_found_and_named(graph: Callable[[], onnx.ModelProto], why: str) -> None:
    assert_refused(graph(), TENSORRT_10_16, why)


BY_PARSER = [name for name in REFUSED if not name.startswith("TopK")]


@pytest.mark.parametrize("name", BY_PARSER)
def test_nvidias_parser_refuses_it_too(name: str) -> None:
    """But for the limits of TopK, which are the builder's business: the parser takes any."""
    assert parses(REFUSED[name][0]()) != ""


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize(
    "operator", ["GroupQueryAttention", "SimplifiedLayerNormalization", "NonMaxSuppression", "Unique"]
)
def test_an_operator_that_is_not_listed_is_refused(operator: str, table: Table) -> None:
    domain = "" if defs.has(operator, "") else "com.microsoft"
    node = helper.make_node(operator, ["x"], ["y"], name="it", domain=domain)
    graph = model([node], {"x": X}, {"y": X}, [], table.opset)
    del graph.opset_import[1:]
    assert_refused(graph, table, operator)


@pytest.mark.parametrize("operator", ["Attention", "RotaryEmbedding", "RMSNormalization", "TensorScatter"])
def test_tensorrt_10_3_takes_none_of_opset_23s_operators(operator: str) -> None:
    assert operator not in TENSORRT_10_3.operators
    assert_refused(SAMPLES[operator].graph(operator, 24), TENSORRT_10_3, "declares opset 24")
    assert_refused(SAMPLES[operator].graph(operator, 20), TENSORRT_10_3, operator)


@pytest.mark.parametrize(
    ("weights", "opset", "table", "taken"),
    [
        ("fp16", 20, TENSORRT_10_3, True),
        ("fp16", 21, TENSORRT_10_3, False),
        ("int8", 20, TENSORRT_10_3, True),
        ("int4-128", 21, TENSORRT_10_3, True),
        ("int4-64", 21, TENSORRT_10_3, True),
        ("int4-128", 22, TENSORRT_10_3, False),
        ("int4-128", 24, TENSORRT_10_16, True),
        ("fp16", 25, TENSORRT_10_16, False),
        ("fp16", 8, TENSORRT_10_16, False),
    ],
)
def test_the_opset_that_a_graph_declares(weights: str, opset: int, table: Table, taken: bool) -> None:
    graph = product_graph(weights, opset)
    if taken:
        check_operators(graph, table)
    else:
        assert_refused(graph, table, f"declares opset {opset}")


@pytest.mark.parametrize("opset", [13, 20, 21, 24, 26])
def test_nvidias_parser_does_not_mind_the_declared_opset(opset: int) -> None:
    """As the source of the older parser says (operators/tensorrt_10_3.py): int4 in blocks parses under any number."""
    assert parses(product_graph("int4-128", opset)) == ""


OLD_ONLY = {
    "a reduction that is none": (changed("ScatterND", reduction="none"), "reduction"),
    "integers in Pow": (changed("Pow", in1=a("n", 4, 8, type=INT64)), "one type"),
    "computed axes of Slice": (changed("Slice", in3=a(1, type=INT64)), "must be a constant"),
}


@pytest.mark.parametrize(("graph", "why"), OLD_ONLY.values(), ids=OLD_ONLY.keys())
def test_what_10_16_takes_and_10_3_does_not(graph: Callable[[], onnx.ModelProto], why: str) -> None:
    check_operators(graph(), TENSORRT_10_16)
    older = graph()
    older.opset_import[0].version = 20
    older.ir_version = 10
    assert_refused(older, TENSORRT_10_3, why)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize(
    ("type", "name"),
    [(TensorProto.DOUBLE, "float64"), (TensorProto.INT16, "int16"), (TensorProto.UINT8, "uint8")],
)
def test_types_that_are_not_taken_are_named(type: int, name: str, table: Table) -> None:
    value = a("n", 4, type=type)
    graph = model([helper.make_node("Add", ["x", "x"], ["y"], name="it")], {"x": value}, {"y": value}, [], 20)
    assert_refused(graph, table, f"reads x of {name}")


def test_a_scale_of_zero_and_blocks_that_do_not_fit_are_refused() -> None:
    graph = product_graph("int4-128")
    scale = np.full((8, 1024), 0.01, np.float16)
    for name, spoiled in (("not above 0", scale * 0), ("do not give scales", scale[:4])):
        copy = onnx.ModelProto.FromString(graph.SerializeToString())
        copy.graph.initializer[1].CopyFrom(constant("scale", spoiled))
        assert_refused(copy, TENSORRT_10_3, name)


def test_weights_in_files_of_their_own_are_not_needed(tmp_path: Path) -> None:
    onnx.save_model(
        product_graph("int4-128"), tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    (tmp_path / "w").unlink()
    check_operators(onnx.load(tmp_path / "m.onnx", load_external_data=False), TENSORRT_10_3)


def test_a_graph_that_contradicts_itself_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "x"], ["y"], name="it")
    assert_refused(model([node], {"x": a(3, 5)}, {"y": a(3, 5)}, [], 20), TENSORRT_10_3, "contradicts itself")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_row_names_versions_that_onnx_has(table: Table) -> None:
    """And none that belongs to a later opset than the table's."""
    history: dict[str, set[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.domain:
            history.setdefault(schema.name, set()).add(schema.since_version)
    for name, operator in table.operators.items():
        assert set(operator.versions) <= history[name], name
        assert max(operator.versions) <= table.quantised_opset, name
        current = defs.get_schema(name, table.opset).since_version
        assert current in operator.versions, f"{name}: version {current} of opset {table.opset} is missing"
        assert operator.types, name
    assert any(re.search(r"commit [0-9a-f]{12}", source) for source in table.sources)


def assert_refused(graph: onnx.ModelProto, table: Table, why: str) -> None:
    with pytest.raises(ExportError) as error:
        check_operators(graph, table)
    line = str(error.value)
    assert why in line
    assert table.name in line or "contradicts itself" in line
    assert "\n" not in line
