"""One matrix of a checkpoint's own 4 bits: its rows as integers and scales, as float32, and as a bundle stores them.

Formats that store inputs first have no output's row to read by itself: their words are held from the first chunk to
the last, half a byte a weight. Threads may read at once. It does not know where the parts come from
(`gather.py`) nor what fits a block (`blocks.py`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import CheckpointError
from hired_export.packed import blocks
from hired_export.packed.formats import Format, Part
from hired_export.packed.nibbles import PER_WORD, unpack
from hired_export.quantisation import Scheme

if TYPE_CHECKING:
    from hired_export.tensor import Tensor

SYMMETRIC_ZERO = 8
ONE_EACH = np.uint32(0x11111111)


@dataclass(frozen=True)
class PackedRows:
    """Some output channels: weight = integer * scale.

    Args:
        integers: (rows, inputs) int8, -15 to 15: the zero point is taken off.
        scales: (rows, groups) float32.
        groups: the group of each input; None = neighbours share a group.
    """

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]
    groups: NDArray[np.int32] | None

    def dequantised(self) -> NDArray[np.float32]:
        """(rows, inputs). Exact for scales of fp16 or bf16: a product of 4 bits and 11."""
        if self.groups is not None:
            return self.integers * self.scales[:, self.groups]
        grouped = self.integers.reshape(*self.scales.shape, -1) * self.scales[..., None]
        return grouped.reshape(self.integers.shape)


class PackedMatrix:
    """A matrix (outputs, inputs) of a checkpoint.

    Args:
        name: of the layer.
        form: how it is stored.
        parts: its stored tensors by suffix, of the shapes that `form` gives.
        shape: (outputs, inputs).
        group: inputs that share a scale.
        one_less: whether zero points are stored less 1 (GPTQ's first format).
    """

    def __init__(
        self,
        name: str,
        form: Format,
        parts: dict[str, Tensor],
        shape: tuple[int, int],
        *,
        group: int,
        one_less: bool = False,
    ) -> None:
        self.name, self.form, self.shape, self.group = name, form, shape, group
        self._parts, self._one_less = parts, one_less
        self._held: dict[str, NDArray[np.generic]] = {}
        self._read, self._lock = 0, threading.Lock()  # threads read rows in any order

    def rows(self, start: int, stop: int) -> PackedRows:
        """Output channels [start, stop).

        Raises:
            CheckpointError: words that are no int32, scales that are no numbers, groups that do not exist.
        """
        form = self.form
        integers = self._numbers(form.integers, start, stop)[:, : self.shape[1]].astype(np.int8)
        scales = self._scales(start, stop)
        if form.zeros.suffix in self._parts:
            zeros = self._numbers(form.zeros, start, stop).astype(np.int8)
        else:
            zeros = np.full(scales.shape, SYMMETRIC_ZERO, np.int8)
        if self._groups is not None:
            integers -= zeros[:, self._groups]
        else:
            integers.reshape(*scales.shape, -1)[...] -= zeros[..., None]
        with self._lock:
            self._read += stop - start
            if self._read >= self.shape[0]:
                self._held.clear()
                self._read = 0
        return PackedRows(integers, scales, self._groups)

    def dequantised(self, start: int, stop: int) -> NDArray[np.float32]:
        """Output channels [start, stop) as the format's own arithmetic gives them, (rows, inputs)."""
        return self.rows(start, stop).dequantised()

    def quantised(
        self, start: int, stop: int, scheme: Scheme
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        """Output channels [start, stop): as `dequantised` gives them, and as a bundle stores them."""
        rows = self.rows(start, stop)
        weights = rows.dequantised()
        return weights, blocks.stored(rows, weights, self.group, scheme)

    @cached_property
    def _groups(self) -> NDArray[np.int32] | None:
        """The group of each input, where they are not in order."""
        form, inputs = self.form, self.shape[1]
        if form.groups is None or form.groups.suffix not in self._parts:
            return None
        groups = self._parts[form.groups.suffix].stored().astype(np.int32)
        if np.array_equal(groups, np.arange(inputs) // self.group):
            return None
        count = inputs // self.group
        if groups.min() < 0 or groups.max() >= count:
            raise self._refused(
                form.groups.suffix, f"names groups {groups.min()} to {groups.max()}", f"0 to {count - 1}"
            )
        return groups

    def _scales(self, start: int, stop: int) -> NDArray[np.float32]:
        """(rows, groups)."""
        part = self.form.scales
        tensor = self._parts[part.suffix]
        if part.axes[0] == "outputs":
            scales = tensor.rows(start, stop)
        else:
            scales = np.ascontiguousarray(tensor.widen(self._whole(part)[:, start:stop]).T)
        if not np.isfinite(scales).all():
            raise self._refused(part.suffix, "holds infinity or what is no number", "finite scales")
        return scales

    def _numbers(self, part: Part, start: int, stop: int) -> NDArray[np.uint8]:
        """Integers of output channels [start, stop), (rows, inputs or groups), contiguous."""
        if part.axes[0] == "outputs" and part.packed != "outputs":
            return unpack(self._words(part, self._parts[part.suffix].stored(start, stop)), 1, self.form.order)
        words = self._words(part, self._whole(part))
        axis = part.axes.index("outputs")
        if part.packed == "outputs":
            first, last = start // PER_WORD, -(-stop // PER_WORD)
            found = unpack(words[first:last] if axis == 0 else words[:, first:last], axis, self.form.order)
            cut = slice(start - first * PER_WORD, stop - first * PER_WORD)
            found = found[cut] if axis == 0 else found[:, cut]
        else:
            assert axis == 1, part
            found = unpack(words[:, start:stop], 0, self.form.order)
        return np.ascontiguousarray(found if axis == 0 else found.T)

    def _words(self, part: Part, words: NDArray[np.generic]) -> NDArray[np.uint32]:
        if words.dtype != np.int32:
            raise self._refused(part.suffix, f"is stored as {words.dtype}", "int32")
        bits = words.view(np.uint32)
        # Added to whole words, carries and all, as GPTQModel does: it stores a zero point of 0 as a borrow.
        return bits + ONE_EACH if self._one_less and part is self.form.zeros else bits

    def _whole(self, part: Part) -> NDArray[np.generic]:
        with self._lock:
            if part.suffix not in self._held:
                self._held[part.suffix] = self._parts[part.suffix].stored()
            return self._held[part.suffix]

    def _refused(self, suffix: str, got: str, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.name}.{suffix} {got}", expected=expected, fix="download the checkpoint again, or use another one"
        )


class PackedPart(PackedMatrix):
    """Output channels [start, stop) of another, as a matrix of their own."""

    def __init__(self, whole: PackedMatrix, start: int, stop: int) -> None:
        super().__init__(whole.name, whole.form, {}, (stop - start, whole.shape[1]), group=whole.group)
        self._of, self._start = whole, start

    def rows(self, start: int, stop: int) -> PackedRows:
        return self._of.rows(self._start + start, self._start + stop)
