"""What distinguishes one target from another, as data: types, precisions, cache, lowering.

A target is what a user names. Which operators a library takes is kept in `hired_export.operators`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from hired_edge.errors import InputError
from hired_edge.manifest import EmbeddingType, FloatType, Method, Precision, Target
from hired_export.decoder import DecoderShape
from hired_export.lowering import cpu, dequantise_linear, jp6, matmul, vision_int8
from hired_export.operators import TENSORRT_10_3, TENSORRT_10_16, Table
from hired_export.quantisation import METHODS, Scheme
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
        vision: precisions of the vision tower, the default first.
        static: whether the cache's length is fixed in the graph: then there is one graph file a budget.
        cache: whether `present.*` is the whole cache at the past's address, or the new keys and values alone.
        lower: from the standard graph; takes `sliding_window`.
        quantise: puts quantised weights into the graph.
        operators: what the library's parser takes, which every graph is held against; None = not a parser's business.
    """

    dtype: FloatType
    precisions: tuple[Precision, ...]
    block_sizes: tuple[int, ...]
    vision: tuple[str, ...]
    static: bool
    cache: Literal["in_place", "append"]
    lower: Callable[..., None]
    quantise: Callable[[ir.Model, Callable[[str], Scheme | None]], None]
    operators: Table | None


_TENSORRT = TargetFacts(
    dtype="float16",
    precisions=("fp16", "int8", "int4"),
    block_sizes=(128, 64),
    vision=("fp16",),
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
        block_sizes=(128, 64, 32),
        vision=("fp32", "int8"),
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
        vision=("fp16",),
        static=True,
        cache="append",
        lower=jp6.lower,
        quantise=dequantise_linear.lower,
        operators=TENSORRT_10_3,
    ),
}


EMBEDDINGS: dict[str, Literal["F32", "F16", "I8"]] = {"fp32": "F32", "fp16": "F16", "int8": "I8"}
EMBEDDING_TYPES: dict[str, EmbeddingType] = {"F32": "float32", "F16": "float16", "I8": "int8"}


def schemes(
    target: Target,
    precision: Precision | None,
    block_size: int | None,
    method: Method | None = None,
    embedding: str | None = None,
    vision: str | None = None,
) -> tuple[Precision, Schemes]:
    """The precision, a target's first where None is given, and how it stores weights.

    int4 keeps the LM head in 8 bits: its errors reach the logits directly, and it is a small share of the bytes.

    Args:
        target, precision, block_size: what was chosen; None = the target's own choice.
        method: how the scales of int4 are chosen; None = "hqq", which needs no data.
        embedding: of the table; None = fp32 beside fp32 weights, else fp16.
        vision: of the tower; None = the target's own choice.

    Raises:
        InputError: the target has no such precision or block size, or the precision no such method.
    """
    facts = TARGETS[target]
    precision = facts.precisions[0] if precision is None else precision
    block_size = facts.block_sizes[0] if block_size is None else block_size
    if method is None:
        method = "hqq" if precision == "int4" else "rtn"
    embedding = ("fp32" if precision == "fp32" else "fp16") if embedding is None else embedding
    for flag, value, known in (
        ("--precision", precision, facts.precisions),
        ("--vision-precision", facts.vision[0] if vision is None else vision, facts.vision),
        ("--block-size", block_size, facts.block_sizes),
        ("--embedding", embedding, tuple(EMBEDDINGS)),
        ("--quantisation", method, METHODS),
    ):
        if value not in known:
            raise InputError(
                f"{flag} {value} with --target {target}",
                expected=" or ".join(map(str, known)),
                fix="choose one of them",
            )
    if method != "rtn" and precision != "int4":
        raise InputError(
            f"--quantisation {method} with --precision {precision}",
            expected="--precision int4, whose blocks have scales to choose",
            fix="leave --quantisation out, or pass --precision int4",
        )
    channel = Scheme(8, None)
    stored = {"int8": (channel, channel), "int4": (Scheme(4, block_size, method), channel)}
    decoder, head = stored.get(precision, (None, None))
    return precision, Schemes(
        decoder, head, EMBEDDINGS[embedding], facts.dtype, vision_int8.SCHEME if vision == "int8" else None
    )


def check_blocks(shape: DecoderShape, stored: Schemes) -> None:
    """DequantizeLinear's blocks fill every matrix: TensorRT takes no partial one.

    Raises:
        InputError: one that they do not fill.
    """
    block = stored.decoder.block_size if stored.decoder and stored.dtype == "float16" else None
    if block is None:
        return
    widths = (shape.hidden_size, shape.heads * shape.head_dim, shape.intermediate_size)
    uneven = [width for width in widths if width % block]
    if uneven:
        raise InputError(
            f"int4 in blocks of {block} for matrices with {uneven[0]} inputs",
            expected="a number of inputs that the block size divides",
            fix="choose another --block-size, or --precision int8",
        )
