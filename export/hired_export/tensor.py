"""One stored tensor of a checkpoint: its shape is known, its data is read on demand, a few rows at a time.

Whatever it is stored as, it reads as float32. A matrix that the checkpoint stores in 4 bits also gives its integers and
scales (`packed.matrix`), so that a bundle of the same blocks can have them unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hired_edge.tensorfile import bfloat16_to_float32
from hired_export.packed.matrix import PackedMatrix, PackedPart
from hired_export.quantisation import Scheme, quantise

ROWS_PER_READ = 1024


class Tensor:
    """One stored tensor.

    Args:
        shape: at least one axis.
        read: rows [start, stop) of the first axis as they are stored; bfloat16 as its bits, uint16.
        bfloat16: whether it is stored so.
        packed: the same matrix as the checkpoint quantised it; `read` then gives it dequantised.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        read: Callable[[int, int], NDArray[Any]],
        *,
        bfloat16: bool,
        packed: PackedMatrix | None = None,
    ) -> None:
        self.shape = shape
        self.packed = packed
        self._read = read
        self._bfloat16 = bfloat16

    @property
    def float_bytes(self) -> int:
        """Its size as float32."""
        return 4 * math.prod(self.shape)

    def stored(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """The tensor, or rows [start, stop) of it, as it is stored, not to be written to; `widen` any part of it."""
        return self._read(start, self.shape[0] if stop is None else stop)

    def widen(self, part: NDArray[Any]) -> NDArray[np.float32]:
        """A part of `stored()` as float32; the same array where it is float32 already."""
        return bfloat16_to_float32(part) if self._bfloat16 else part.astype(np.float32, copy=False)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows [start, stop) of the first axis as float32, not to be written to."""
        return self.widen(self._read(start, stop))

    def part(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the first axis, as a tensor of their own."""
        shape = (stop - start, *self.shape[1:])
        packed = None if self.packed is None else PackedPart(self.packed, start, stop)
        return Tensor(shape, lambda a, b: self._read(start + a, start + b), bfloat16=self._bfloat16, packed=packed)

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """The tensor in order as float32, a bounded number of rows at a time, not to be written to."""
        for start, stop in self.spans():
            yield self.rows(start, stop)

    def quantised_chunks(
        self, scheme: Scheme
    ) -> Iterator[tuple[NDArray[np.float32], tuple[NDArray[np.uint8], NDArray[np.float32]]]]:
        """A matrix in order, a bounded number of rows at a time: as float32, and as `quantise` gives them.

        Integers that the checkpoint stores are kept wherever `scheme` can hold them (see `packed.blocks`).
        """
        for start, stop in self.spans():
            yield self.quantised_rows(start, stop, scheme)

    def quantised_rows(
        self, start: int, stop: int, scheme: Scheme
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """One chunk of those, of any rows [start, stop). Threads may call it at once."""
        if self.packed is not None:
            return self.packed.quantised(start, stop, scheme)
        rows = self.rows(start, stop)
        return rows, quantise(rows, scheme)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Rows [start, stop) that are read at once, in order."""
        for start in range(0, self.shape[0], ROWS_PER_READ):
            yield start, min(start + ROWS_PER_READ, self.shape[0])
