"""What the operator lists are made of: one row an operator, one table a TensorRT release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import onnx

from hired_export.operators.values import Values

FLOATS = ("float32", "float16", "bfloat16")
NUMBERS = (*FLOATS, "int32", "int64")
ANY = (*NUMBERS, "bool")


class Rule(Protocol):
    """A restriction that a node obeys or breaks."""

    def broken(self, node: onnx.NodeProto, values: Values) -> str | None:
        """What is wrong with the node, as the end of "...: "; None if nothing is."""
        ...


@dataclass(frozen=True)
class Operator:
    """One row.

    Args:
        versions: since_version of every definition that is taken, of the opsets that the table covers.
        types: of the values that share the typed input's type (float32, int4, ...).
        typed_input: which input those types are of.
        rules: restrictions beyond the types.
        board: what only a board can confirm; empty if nothing is in doubt.
    """

    versions: tuple[int, ...]
    types: tuple[str, ...]
    typed_input: int = 0
    rules: tuple[Rule, ...] = ()
    board: str = ""


@dataclass(frozen=True)
class Table:
    """One release.

    Args:
        name: as in messages ("TensorRT 10.3 (JetPack 6.2)").
        opset: the highest that its documentation names.
        quantised_opset: what a graph with QuantizeLinear or DequantizeLinear may declare.
        operators: those that our graphs use or could use; what is not here is refused.
        sources: where each kind of fact comes from.
        board: what only a board can confirm.
    """

    name: str
    opset: int
    quantised_opset: int
    operators: dict[str, Operator]
    sources: tuple[str, ...]
    board: tuple[str, ...]
