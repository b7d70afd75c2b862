"""Which tensor lies where, and what is copied: arithmetic on shapes. It knows neither CUDA nor TensorRT.

Everything a step touches lies in a few blocks, each allocated once for the largest step of an opening: the step's
inputs, the cache, an `append` graph's new keys and values, the logits. Within a block every tensor starts at a multiple
of 256 bytes, which TensorRT asks of an address (IExecutionContext::setTensorAddress).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hired_edge.manifest import TextModel
from hired_runtime.backend import Ints
from hired_runtime.cache import CacheRules

Shape = tuple[int, ...]

ALIGNMENT = 256
CALL_BYTES = 96 * 1024
"""A copy's call costs about as much as copying so many bytes: some 10 us of latency at some 10 GB/s."""


def aligned(size: int) -> int:
    """`size`, rounded up to where the next tensor may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Field:
    """A tensor's place in a block: its offset in bytes."""

    shape: Shape
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def of(self, block: NDArray[np.uint8]) -> NDArray:
        """The tensor itself, where `block` is host memory: a view."""
        return block[self.offset : self.offset + self.nbytes].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Layout:
    """Tensors one behind the other. More rows or tokens never make a layout smaller."""

    fields: Mapping[str, Field]
    nbytes: int


def pack(tensors: Iterable[tuple[str, Shape, np.dtype]]) -> Layout:
    """Lays (name, shape, dtype) out, in this order."""
    fields: dict[str, Field] = {}
    end = 0
    for name, shape, dtype in tensors:
        fields[name] = Field(shape, dtype, end)
        end += aligned(fields[name].nbytes)
    return Layout(fields, end)


@dataclass(frozen=True)
class Box:
    """One strided copy within device memory: `depth` planes of `height` rows of `width` bytes.

    Offsets are in bytes, from the beginning of the source's and the target's block. A row begins `pitch` bytes behind
    the one before it, a plane `rows` of them behind the plane before it (CUDA_MEMCPY3D: Pitch and Height).
    """

    source: int
    target: int
    width: int
    height: int
    depth: int
    source_pitch: int
    source_rows: int
    target_pitch: int
    target_rows: int


class LanguageAddresses:
    """The blocks of a language engine.

    Args:
        text: the language model.
        inputs: of its graph, the cache's included.
        batch: rows of the cache.
        tokens: of the longest prefill.
        slots: M, which the engine was built for.
    """

    def __init__(self, text: TextModel, inputs: Sequence[str], *, batch: int, tokens: int, slots: int) -> None:
        self.rules = CacheRules(text, slots)
        self._text, self._batch = text, batch
        self._inputs = [name for name in inputs if name not in self.rules.names.past]
        self._cache_dtype = np.dtype(text.cache_dtype)
        self._row_bytes = text.head_dim * self._cache_dtype.itemsize
        self._array_bytes = batch * text.kv_heads * slots * self._row_bytes
        self.cache_bytes = 2 * text.layers * aligned(self._array_bytes)
        self.input_bytes = self.inputs(batch, tokens).nbytes
        self.update_bytes = self.updates(batch, tokens).nbytes if text.cache == "append" else 0
        self.logits_bytes = self.logits(batch).nbytes

    def inputs(self, batch: int, tokens: int) -> Layout:
        """A step's inputs but the cache, one behind the other: they cross to the device in one copy."""
        text, integers = self._text, np.dtype(np.int64)
        every: dict[str, tuple[Shape, np.dtype]] = {
            "inputs_embeds": ((batch, tokens, text.hidden_size), np.dtype(text.activation_dtype)),
            "position_ids": ((batch, tokens), integers),
            "attention_mask": ((batch, 1, tokens, self.rules.slots), np.dtype(np.bool_)),
            "write_indices": ((batch,), integers),
            "last_token": ((batch,), integers),
        }
        return pack((name, *every[name]) for name in self._inputs)

    def cache(self, batch: int, first: int = 0) -> dict[str, Field]:
        """The past of `batch` rows from `first` on: an array keeps its address, whatever the batch."""
        shape = (batch, self._text.kv_heads, self.rules.slots, self._text.head_dim)
        stride, skipped = aligned(self._array_bytes), first * (self._array_bytes // self._batch)
        return {
            name: Field(shape, self._cache_dtype, index * stride + skipped)
            for index, name in enumerate(self.rules.names.past)
        }

    def updates(self, batch: int, tokens: int) -> Layout:
        """An `append` graph's new keys and values, in the order of the cache's arrays."""
        shape = (batch, self._text.kv_heads, tokens, self._text.head_dim)
        return pack((name, shape, self._cache_dtype) for name in self.rules.names.present)

    def logits(self, batch: int) -> Field:
        return Field((batch, self._text.vocab_size), np.dtype(np.float32), 0)

    def shapes(self, batch: int, tokens: int) -> dict[str, Shape]:
        """Of every input, as an execution context is to be told."""
        fields = {**self.inputs(batch, tokens).fields, **self.cache(batch)}
        return {name: field.shape for name, field in fields.items()}

    def appended(self, starts: Ints, tokens: int, first: int = 0) -> list[Box]:
        """What brings the new keys and values (B, G, S, Dh) of every array behind the past of rows from `first` on.

        One copy for all rows where they start alike, else one a row; each through all 2 L arrays at once where their
        new keys follow each other without a gap, else one an array.
        """
        batch, heads, slots, arrays = len(starts), self._text.kv_heads, self.rules.slots, 2 * self._text.layers
        width = tokens * self._row_bytes
        update = batch * heads * width
        gapless = update == aligned(update) and self._array_bytes == aligned(self._array_bytes)
        planes = [(0, arrays)] if gapless else [(index, 1) for index in range(arrays)]
        alike = bool((starts == starts[0]).all())
        rows = [(0, batch)] if alike else [(index, 1) for index in range(batch)]
        return [
            Box(
                source=plane * aligned(update) + row * heads * width,
                target=plane * aligned(self._array_bytes)
                + ((first + row) * heads * slots + int(starts[row])) * self._row_bytes,
                width=width,
                height=count * heads,
                depth=depth,
                source_pitch=width,
                source_rows=batch * heads,
                target_pitch=slots * self._row_bytes,
                target_rows=self._batch * heads,
            )
            for plane, depth in planes
            for row, count in rows
        ]

    def copied(self, source: int, target: int, tokens: int) -> list[Box]:
        """What brings the first `tokens` slots of a row of every array to another row.

        One copy through all 2 L arrays, or one an array where they have gaps between them.
        """
        heads, slots, arrays = self._text.kv_heads, self.rules.slots, 2 * self._text.layers
        row, pitch = heads * slots * self._row_bytes, slots * self._row_bytes
        gapless = self._array_bytes == aligned(self._array_bytes)
        return [
            Box(
                source=plane * aligned(self._array_bytes) + source * row,
                target=plane * aligned(self._array_bytes) + target * row,
                width=tokens * self._row_bytes,
                height=heads,
                depth=depth,
                source_pitch=pitch,
                source_rows=self._batch * heads,
                target_pitch=pitch,
                target_rows=self._batch * heads,
            )
            for plane, depth in ([(0, arrays)] if gapless else [(index, 1) for index in range(arrays)])
        ]


class VisionAddresses:
    """The blocks of a vision engine.

    Args:
        image_size: pixels, of a tile's side.
        patches: N of a tile.
        width: D.
        images, tiles: of a request, and of a picture, at most.
        dtype: of pixels and features.
    """

    def __init__(self, *, image_size: int, patches: int, width: int, images: int, tiles: int, dtype: np.dtype) -> None:
        self._side, self._patches, self._width, self._dtype = image_size, patches, width, dtype
        self.rows, self.row_bytes = tiles * patches, width * dtype.itemsize
        self.slot_bytes = aligned(self.rows * self.row_bytes)
        self.feature_bytes = images * self.slot_bytes
        self.pixel_bytes = aligned(self.pixels(tiles).nbytes)
        self.map_bytes = self.maps(tiles).nbytes

    def pixels(self, tiles: int) -> Field:
        return Field((tiles, 3, self._side, self._side), self._dtype, 0)

    def features(self, tiles: int, slot: int) -> Field:
        """A picture's features (T, N, D) in the block of all pictures."""
        return Field((tiles, self._patches, self._width), self._dtype, slot * self.slot_bytes)

    def rows_of(self, block: NDArray[np.uint8]) -> NDArray:
        """(T * N, D): a picture's features where `block` is host memory of `slot_bytes`; a view."""
        return Field((self.rows, self._width), self._dtype, 0).of(block)

    def maps(self, tiles: int) -> Layout:
        """Both attention maps (T, N) of one picture."""
        shape, dtype = (tiles, self._patches), np.dtype(np.float32)
        return pack((name, shape, dtype) for name in ("allocation_attention", "selection_attention"))


def runs(rows: Ints, row_bytes: int, call_bytes: int = CALL_BYTES) -> list[tuple[int, int]]:
    """Which stretches [start, stop) of rows to copy, so that every row >= 0 of `rows` is among them.

    A gap is copied along where its bytes cost less than another call would: every gap by itself, so that the sum of all
    bytes and calls is the least. Kept rows of LLaVA-NeXT (8 KiB each) bridge gaps of up to 12 rows.
    """
    kept = np.unique(rows[rows >= 0])
    if not len(kept):
        return []
    cuts = np.flatnonzero((np.diff(kept) - 1) * row_bytes >= call_bytes)
    # Neighbours have a gap of no bytes, which is never worth a call.
    firsts, lasts = kept[np.r_[0, cuts + 1]], kept[np.r_[cuts, len(kept) - 1]]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]
