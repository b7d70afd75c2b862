"""What distinguishes one target from another, as data: types, precisions, cache, lowering.

A target is what a user names. Which operators a library takes is kept in `hired_export.operators`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from hired_edge.errors import InputError
from hired_edge.manifest import FloatType, Precision, Target
from hired_export.lowering import cpu, dequantise_linear, jp6, matmul
from hired_export.operators import TENSORRT_10_3, TENSORRT_10_16, Table
from hired_export.quantisation import Scheme
from hired_export.sources import Schemes


def _as_it_is(model: ir.Model, *, sliding_window: int | None = None) -> None:
    """The standard graph: a window is the mask's business."""


@dataclass(frozen=True)
class TargetFacts:
    """One target.

    Args:
        dtype: of activations, the cache and what is not quantised.
        precisions: of the weights that it has.
        block_sizes: of int4, the default first.
        static: whether the cache's length is fixed in the graph: then there is one graph file a budget.
        cache: whether `present.*` is the whole cache at the past's address, or the new keys and values alone.
        lower: from the standard graph; takes `sliding_window`.
        quantise: puts quantised weights into the graph.
        operators: what the library's parser takes, which every graph is held against; None = not a parser's business.
    """

    dtype: FloatType
    precisions: tuple[Precision, ...]
    block_sizes: tuple[int, ...]
    static: bool
    cache: Literal["in_place", "append"]
    lower: Callable[..., None]
    quantise: Callable[[ir.Model, Callable[[str], Scheme | None]], None]
    operators: Table | None


_TENSORRT = TargetFacts(
    dtype="float16",
    precisions=("fp16", "int8", "int4"),
    block_sizes=(128, 64),
    static=True,  # TensorRT's parser wants the cache's length when it parses
    cache="in_place",
    lower=_as_it_is,
    quantise=dequantise_linear.lower,
    operators=TENSORRT_10_16,
)
TARGETS: dict[Target, TargetFacts] = {
    "cpu": TargetFacts(
        dtype="float32",
        precisions=("fp32", "int8", "int4"),
        block_sizes=(32, 64, 128),
        static=False,
        cache="in_place",
        lower=cpu.lower,
        quantise=matmul.lower,
        operators=None,
    ),
    "cuda": _TENSORRT,
    "jp7": _TENSORRT,
    "jp6": TargetFacts(
        dtype="float16",
        precisions=("fp16", "int8", "int4"),
        block_sizes=(128, 64),
        static=True,
        cache="append",
        lower=jp6.lower,
        quantise=dequantise_linear.lower,
        operators=TENSORRT_10_3,
    ),
}


def schemes(target: Target, precision: Precision | None, block_size: int | None) -> tuple[Precision, Schemes]:
    """The precision, a target's first where None is given, and how it stores weights.

    int4 keeps the LM head in 8 bits: its errors reach the logits directly, and it is a small share of the bytes.

    Raises:
        InputError: the target has no such precision or block size.
    """
    facts = TARGETS[target]
    precision = facts.precisions[0] if precision is None else precision
    block_size = facts.block_sizes[0] if block_size is None else block_size
    for flag, value, known in (
        ("--precision", precision, facts.precisions),
        ("--block-size", block_size, facts.block_sizes),
    ):
        if value not in known:
            raise InputError(
                f"{flag} {value} with --target {target}",
                expected=" or ".join(map(str, known)),
                fix="choose one of them",
            )
    channel = Scheme(8, None)
    stored = {"int8": (channel, channel), "int4": (Scheme(4, block_size), channel)}
    decoder, head = stored.get(precision, (None, None))
    embedding = "F32" if precision == "fp32" else "F16"
    return precision, Schemes(decoder, head, embedding, facts.dtype)
