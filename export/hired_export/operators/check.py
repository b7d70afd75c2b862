"""A graph held against one operator list: opset, operators and their versions, types, restrictions.

It looks at the graph alone: weights that lie in other files are not read, so what they hold (a scale of 0) is the
export's own business. Whether the builder then finds kernels, only TensorRT can tell.
"""

from __future__ import annotations

from typing import NoReturn

import onnx
from onnx import defs, shape_inference

from hired_edge.errors import ExportError
from hired_export.operators.table import Operator, Table
from hired_export.operators.values import Values, known_values

QUANTISING = ("QuantizeLinear", "DequantizeLinear")
FIX = "change the lowering, or choose another --target"


def check_operators(model: onnx.ModelProto, table: Table) -> None:
    """Refuses what the table's TensorRT would not parse.

    Args:
        model: its external data may be absent.
        table: TENSORRT_10_3 or TENSORRT_10_16.

    Raises:
        ExportError: naming the node, its operator and version, and the table.
    """
    opset = _opset(model, table)
    try:
        values = known_values(model)
    except shape_inference.InferenceError as error:
        text = " ".join(str(error).split())[:200]
        raise ExportError(f"the graph contradicts itself ({text})", expected="valid ONNX", fix=FIX) from None
    for node in model.graph.node:
        _check_node(node, opset, values, table)


def _opset(model: onnx.ModelProto, table: Table) -> int:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    others = sorted(domain for domain in versions if domain not in ("", "ai.onnx"))
    if others:
        _refuse(f"the graph uses the domain {others[0]}", table, "operators of ai.onnx alone")
    if model.functions:
        _refuse(f"the graph has the local function {model.functions[0].name}", table, "operators alone")
    opset = versions.get("", versions.get("ai.onnx", 0))
    quantised = any(node.op_type in QUANTISING for node in model.graph.node)
    highest = table.quantised_opset if quantised else table.opset
    if not 9 <= opset <= highest:
        why = " with QuantizeLinear or DequantizeLinear" if quantised else ""
        _refuse(f"the graph declares opset {opset}{why}", table, f"9 to {highest}")
    return opset


def _check_node(node: onnx.NodeProto, opset: int, values: Values, table: Table) -> None:
    if node.domain not in ("", "ai.onnx") or not defs.has(node.op_type, opset, ""):
        _refuse(f"{node.op_type} {node.name!a}, no operator of opset {opset}", table, "operators of ai.onnx alone")
    schema = defs.get_schema(node.op_type, opset, "")
    what = f"{node.op_type} (version {schema.since_version}) {node.name!a}"
    operator = table.operators.get(node.op_type)
    if operator is None:
        _refuse(what, table, "operators that it takes")
    if schema.since_version not in operator.versions:
        _refuse(what, table, f"version {' or '.join(map(str, operator.versions))}")
    _check_types(node, schema, operator, values, table, what)
    for rule in operator.rules:
        wrong = rule.broken(node, values)
        if wrong is not None:
            _refuse(f"{what}: {wrong}", table, "what its parser takes")


def _check_types(
    node: onnx.NodeProto, schema: defs.OpSchema, operator: Operator, values: Values, table: Table, what: str
) -> None:
    """All inputs that share the typed input's type variable; of an operator without inputs, its output."""
    if not node.input:
        names = list(node.output)
    else:
        typed = schema.inputs[operator.typed_input].type_str
        last = len(schema.inputs) - 1  # which may stand for many (Concat)
        names = [name for i, name in enumerate(node.input) if name and schema.inputs[min(i, last)].type_str == typed]
    for name in names:
        found = values.types.get(name)
        if found not in operator.types:
            _refuse(f"{what} reads {name} of {found or 'an unknown type'}", table, " or ".join(operator.types))


def _refuse(got: str, table: Table, expected: str) -> NoReturn:
    raise ExportError(f"{got}, which {table.name} does not take", expected=expected, fix=FIX)
