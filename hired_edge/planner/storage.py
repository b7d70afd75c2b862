"""How an export stores a model for each target, and the bytes that this takes.

The facts are the exporter's own (`hired_export.targets`, `quantisation.py`, `writing.py`): the contract may not import
them, so tests/host/test_planner_storage.py holds these against those, and against the files of real bundles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hired_edge.errors import InputError
from hired_edge.manifest import EmbeddingType, FloatType, Manifest, Precision, Target
from hired_edge.plan import ITEMSIZE, PREFILL_CHUNK, TILES_AT_ONCE
from hired_edge.planner.shapes import ModelShape, Tensors

GRAPH_BYTES_PER_LAYER = 6 * 2**10
"""A graph's nodes and names: some KiB a layer, which only the tiniest models notice."""
CHANNEL_BLOCK = 128
"""MatMulNBits has blocks alone: a whole channel's scale is stored again for each of these (quantisation.py)."""


@dataclass(frozen=True)
class TargetStorage:
    """One target.

    Args:
        dtype: of activations, the cache and whatever is not quantised.
        precisions: of the weights that it has.
        block_sizes: of int4, the default first.
        vision: precisions of the tower, the default first.
        blocks_alone: every quantised matrix is stored in whole blocks of inputs, the last one padded.
        cache: whether `present.*` is the cache itself or the new keys and values alone.
        masked: whether the language graph takes a mask (B, 1, S, M).
        scores: whether attention writes its scores (B, H, S, M + S) to memory, being no fused kernel.
        tiles: of a picture that the tower computes at a time; None for all of them.
        chunk: positions of a prefill that are computed at a time, all rows together; None for all of them.
        slack: what an allocator takes for what lives at once. On the CPU it is glibc's, which holds freed blocks
            back: 1.06 and 1.4 were measured, by fixing its mmap threshold. A GPU engine's workspace is one block.
    """

    dtype: FloatType
    precisions: tuple[Precision, ...]
    block_sizes: tuple[int, ...]
    vision: tuple[str, ...]
    blocks_alone: bool
    cache: Literal["in_place", "append"]
    masked: bool
    scores: bool
    tiles: int | None
    chunk: int | None
    slack: float

    @property
    def item(self) -> int:
        """Bytes of one activation."""
        return ITEMSIZE[self.dtype]


_HALF: tuple[tuple[Precision, ...], tuple[int, ...], tuple[str, ...]] = (("fp16", "int8", "int4"), (128, 64), ("fp16",))
_TENSORRT = TargetStorage("float16", *_HALF, False, "in_place", True, False, None, None, 1.0)
TARGETS: dict[Target, TargetStorage] = {
    "cpu": TargetStorage(
        dtype="float32",
        precisions=("fp32", "int8", "int4"),
        block_sizes=(128, 64, 32),
        vision=("fp32", "int8"),
        blocks_alone=True,
        cache="in_place",
        masked=False,
        scores=False,
        tiles=TILES_AT_ONCE,
        chunk=PREFILL_CHUNK,
        slack=1.2,
    ),
    "cuda": _TENSORRT,
    "jp7": _TENSORRT,
    "jp6": TargetStorage("float16", *_HALF, False, "append", True, True, None, None, 1.0),
}
EMBEDDING_ITEMS = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of an element of the token embeddings, by `--embedding`."""
_EMBEDDINGS: dict[EmbeddingType, str] = {"float32": "fp32", "float16": "fp16", "int8": "int8"}
_BITS: dict[Precision, int | None] = {"fp32": None, "fp16": None, "int8": 8, "int4": 4}


@dataclass(frozen=True)
class Stored:
    """A model as it is stored: bytes of each part of a bundle that counts."""

    vision: int
    language: int
    embedding: int
    """The mapped table: on disk, and in memory only as far as rows are in use."""
    repacked: int
    """What an engine's own copy of the language model's blocks takes beside them, once it is loaded."""
    largest_matrix: int
    """Of the language graph: what is held twice for a moment while an engine loads."""
    matrices: int
    """Of the language graph, the LM head included: what every step reads."""

    @property
    def weights(self) -> int:
        """Both graphs."""
        return self.vision + self.language


def stored(
    model: ModelShape,
    target: Target,
    precision: Precision,
    block_size: int | None = None,
    *,
    vision: str | None = None,
    embedding: str | None = None,
) -> Stored:
    """What `hired-edge export --target T --precision P` writes, in bytes.

    int4 keeps the LM head in 8 bits, one scale a channel.

    Args:
        model: the sizes.
        target, precision, block_size: of the export.
        vision: precision of the tower and projector; None = as the target's activations.
        embedding: of the table; None = fp32 beside fp32 weights, else fp16.

    Raises:
        InputError: the target has no such precision or block size, or there is no such embedding.
    """
    facts = TARGETS[target]
    block = facts.block_sizes[0] if block_size is None else block_size
    for flag, value, known in (
        ("--precision", precision, facts.precisions),
        ("--block-size", block, facts.block_sizes),
        ("--vision-precision", facts.vision[0] if vision is None else vision, facts.vision),
        ("--embedding", "fp16" if embedding is None else embedding, tuple(EMBEDDING_ITEMS)),
    ):
        if value not in known:
            expected = " or ".join(map(str, known))
            raise InputError(f"{flag} {value} with --target {target}", expected=expected, fix="choose one of them")
    tensors = model.language_tensors
    sizes = {name: _language_bytes(name, shape, facts, precision, block) for name, shape in tensors.items()}
    matrices = [size for name, size in sizes.items() if len(tensors[name]) == 2]
    text = model.text
    rotary = 2 * text.positions * (text.head_dim // 2) * facts.item
    return Stored(
        vision=_vision_bytes(model, facts, vision) + GRAPH_BYTES_PER_LAYER * model.tower.exported_layers,
        language=sum(sizes.values()) + rotary + GRAPH_BYTES_PER_LAYER * text.layers,
        embedding=_embedding_bytes(model, embedding or ("fp32" if precision == "fp32" else "fp16")),
        repacked=_repacked_bytes(tensors, facts, precision, block),
        largest_matrix=max(matrices),
        matrices=sum(matrices),
    )


def stored_in(model: ModelShape, manifest: Manifest) -> Stored:
    """The same of a bundle that is there."""
    how = manifest.quantisation
    return stored(
        model,
        manifest.target,
        how.precision,
        how.block_size if how.precision == "int4" else None,
        vision="int8" if how.vision == "int8" else None,
        embedding=_EMBEDDINGS[how.embedding_dtype],
    )


def _plain(tensors: Tensors, item: int) -> int:
    return item * sum(math.prod(shape) for shape in tensors.values())


def _vision_bytes(model: ModelShape, facts: TargetStorage, vision: str | None) -> int:
    """In int8: a scale a channel of every matrix, and once more in floats what the CLS rows of the attention maps are
    made with, the query and key matrices of two layers (one where they are the same)."""
    tensors = model.vision_tensors
    if vision != "int8":
        return _plain(tensors, facts.item)
    matrices = {name: shape for name, shape in tensors.items() if len(shape) == 2 and "embedding" not in name}
    rest = {name: shape for name, shape in tensors.items() if name not in matrices}
    integers = sum(outputs * inputs + facts.item * outputs for outputs, inputs in matrices.values())
    maps = 2 * len({0, model.tower.feature_layer}) * model.tower.hidden_size**2 * facts.item
    return _plain(rest, facts.item) + integers + maps


def _embedding_bytes(model: ModelShape, embedding: str) -> int:
    """Beside rows of int8, their scales and the newline are float32."""
    tensors = model.embedding_tensors
    if embedding != "int8":
        return _plain(tensors, EMBEDDING_ITEMS[embedding])
    return sum(shape[0] * (shape[1] + 4) if len(shape) == 2 else 4 * shape[0] for shape in tensors.values())


def _language_bytes(
    name: str, shape: tuple[int, ...], facts: TargetStorage, precision: Precision, block_size: int
) -> int:
    bits = _BITS[precision]
    if bits is None or len(shape) != 2:
        return math.prod(shape) * facts.item
    block = _block(name, precision, block_size)
    return matrix_bytes(shape, bits if block else 8, block, facts)


def _block(name: str, precision: Precision, block_size: int) -> int | None:
    """Inputs that share a scale; None for one scale a channel, which is 8 bits: all of int8, and the LM head."""
    return None if name == "lm_head.weight" or precision == "int8" else block_size


def _repacked_bytes(tensors: Tensors, facts: TargetStorage, precision: Precision, block_size: int) -> int:
    """ONNX Runtime on an x86 CPU (MatMulNBits, 8-bit compute) packs a block's integers, its scale and its sum into one
    place; the file's scales, which it read for that, stay mapped. Measured with 7B in int4: 24 + 4 bytes for a block of
    32's 20. Taken to be so in int8 as well; not measured on Arm."""
    if not facts.blocks_alone or _BITS[precision] is None:
        return 0
    matrices = {name: shape for name, shape in tensors.items() if len(shape) == 2}
    return sum(
        2 * facts.item * outputs * -(-inputs // (_block(name, precision, block_size) or CHANNEL_BLOCK))
        for name, (outputs, inputs) in matrices.items()
    )


def matrix_bytes(shape: tuple[int, ...], bits: int, block: int | None, facts: TargetStorage) -> int:
    """Integers and scales of a quantised matrix (outputs, inputs); `block` None for one scale a channel."""
    outputs, inputs = shape
    if facts.blocks_alone:
        block = block or CHANNEL_BLOCK
        inputs = -(-inputs // block) * block
    scales = outputs * (1 if block is None else inputs // block)
    return outputs * inputs * bits // 8 + scales * facts.item
