"""Weights from a checkpoint into a graph's external data, one tensor at a time and never the model.

An initialiser is written as chunks of rows: the checkpoint's own, of the transposed matrix, or quantised; several are
made at once, in threads (numpy lets them run beside each other). A matrix to be transposed is the largest thing held:
the source tensor in its stored type, or its integers where it is quantised, and a few slices of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hired_export.external import ExternalData, refusing_overflow
from hired_export.lowering.matmul import quantised_name, scales_name
from hired_export.quantisation import Scheme, dequantise, signed
from hired_export.tensor import Tensor

SLICE_BYTES = 2**25
"""Of a transposed matrix, made by one thread."""
BLOCK_WEIGHTS = 2**18
"""Quantised by one thread at a time: few enough that its steps find them in the cache."""


@dataclass(frozen=True)
class QuantisationError:
    """Relative root-mean-square error of a quantised tensor: rms(w' - w) / rms(w)."""

    name: str
    value: float


def write_plain(data: ExternalData, graph: ir.Graph, name: str, tensor: Tensor, *, transpose: bool) -> None:
    """Writes a tensor, or its transpose, in the type of its initialiser."""
    value = graph.initializers[name]
    if data.kept(name) is not None:
        data.skip(value)
        return
    data.write_parts(value, transposed(tensor) if transpose else _rows(tensor))
    data.done(name)


def _rows(tensor: Tensor) -> Iterator[Callable[[], NDArray[np.float32]]]:
    for start, stop in tensor.spans():
        yield partial(tensor.rows, start, stop)


def transposed(tensor: Tensor) -> Iterator[Callable[[], NDArray[np.float32]]]:
    """(out, in) -> (in, out): what makes the slices of inputs, in order, each of SLICE_BYTES or of one input."""
    source = tensor.stored()
    inputs = max(1, SLICE_BYTES // (4 * len(source)))
    for start in range(0, source.shape[1], inputs):
        yield partial(_transposed, tensor, source[:, start : start + inputs])


def _transposed(tensor: Tensor, columns: NDArray) -> NDArray[np.float32]:
    return tensor.widen(np.ascontiguousarray(columns.T))


def write_quantised(
    data: ExternalData, graph: ir.Graph, name: str, tensor: Tensor, scheme: Scheme
) -> QuantisationError:
    """Quantises a matrix; the scales follow the integers in the file."""
    stored_as = quantised_name(name)  # a tower's graph may read the same matrix in floats as well
    values = graph.initializers[stored_as], graph.initializers[scales_name(name)]
    kept = data.kept(stored_as)
    if kept is not None:
        assert kept.error is not None
        for value in values:
            data.skip(value)
        return QuantisationError(name, kept.error)
    job = _Quantisation(tensor, scheme, stored_as)
    blocks = values[0].dtype == ir.DataType.UINT8  # MatMulNBits' layout is the quantiser's own; the other is (in, out)
    if blocks:
        data.write(values[0], data.ahead(job.parts(job.packed)))
    else:
        whole = np.empty((tensor.shape[1], tensor.shape[0] * scheme.bits // 8), np.uint8)
        for _ in data.ahead(job.parts(partial(job.linear, whole))):
            pass
        data.write(values[0], [whole])
    scales = job.scales
    if not blocks:
        scales = scales[:, 0] if scheme.block_size is None else scales.T
    data.write(values[1], [scales.reshape(-1)])
    data.done(stored_as, job.error)
    return QuantisationError(name, job.error)


class _Quantisation:
    """One matrix (out, in), quantised in any order of its rows."""

    def __init__(self, tensor: Tensor, scheme: Scheme, name: str) -> None:
        outputs, inputs = tensor.shape
        rows = max(8, BLOCK_WEIGHTS // inputs // 8 * 8)  # int4 shares a byte by pairs, a checkpoint's words by eights
        self._spans = [(start, min(start + rows, outputs)) for start in range(0, outputs, rows)]
        self._squares = np.zeros((len(self._spans), 2))  # of the error, of the weights
        self._tensor, self._scheme, self._name = tensor, scheme, name
        self.scales = np.empty((outputs, scheme.blocks(inputs)), np.float32)

    def parts(self, function: Callable[[int], NDArray]) -> Iterator[Callable[[], NDArray]]:
        for index in range(len(self._spans)):
            yield partial(function, index)

    @property
    def error(self) -> float:
        """rms(w' - w) / rms(w)."""
        error, weights = self._squares.sum(axis=0)
        return float(np.sqrt(error / weights)) if weights else 0.0

    def packed(self, index: int) -> NDArray[np.uint8]:
        """One span of rows, (rows, blocks, bytes); its scales and its error are noted."""
        start, stop = self._spans[index]
        with refusing_overflow(self._name):
            rows, (packed, scales) = self._tensor.quantised_rows(start, stop, self._scheme)
        self.scales[start:stop] = scales
        error = dequantise(packed, scales, self._scheme, rows.shape[1]) - rows
        self._squares[index] = _squares(error), _squares(rows)
        return packed

    def linear(self, whole: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """The same in DequantizeLinear's layout, into its columns of the whole matrix.

        Args:
            whole: int8 (in, out), or two neighbours of it a byte, the earlier one in the low half.
        """
        start, stop = self._spans[index]
        integers = signed(self.packed(index), self._scheme, len(whole)).view(np.uint8)
        if self._scheme.bits == 4:
            assert len(self.scales) % 2 == 0, self._name  # by targets.check_blocks
            start, stop = start // 2, stop // 2
            integers = integers[0::2] & 15 | integers[1::2] << 4
        whole[:, start:stop] = integers.T
        return whole


def _squares(values: NDArray[np.float32]) -> float:
    return float(np.square(values, dtype=np.float64).sum())
