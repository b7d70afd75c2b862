"""Weights from a checkpoint into a graph's external data, one tensor at a time and never the model.

An initialiser is written as chunks of rows: the checkpoint's own, of the transposed matrix, or quantised.
A matrix to be transposed is the largest thing held: the source tensor in its stored type, and a slice of the result.
Offsets are aligned to 64 bytes, from 1 MiB on to 4096, so that a runtime may map them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hired_export.checkpoint import Tensor
from hired_export.lowering.matmul import quantised_name, scales_name
from hired_export.quantisation import Scheme, dequantise, quantise, signed

SLICE_BYTES = 2**25


class ExternalData:
    """A file of tensors beside a graph, written in order. Use as a context manager."""

    def __init__(self, graph_file: Path) -> None:
        self.path = graph_file.with_name(graph_file.name + ".data")
        self._file = self.path.open("wb")

    def __enter__(self) -> ExternalData:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, value: ir.Value, chunks: Iterable[NDArray]) -> None:
        """Writes a tensor's bytes and makes `value` refer to them.

        Args:
            value: of a float type, which chunks are rounded to; or of an integer type, whose chunks are stored as given
                (int4 as bytes, the earlier element in the low half).
            chunks: add up to the value's shape.
        """
        assert value.shape is not None
        assert value.dtype is not None
        size = int(math.prod(value.shape.numpy()) * value.dtype.itemsize)  # an itemsize may be half a byte
        alignment = 4096 if size >= 2**20 else 64
        offset = -(-self._file.tell() // alignment) * alignment
        self._file.write(bytes(offset - self._file.tell()))
        rounded = value.dtype.numpy() if value.dtype.is_floating_point() else None
        for chunk in chunks:
            self._file.write(np.ascontiguousarray(chunk, rounded).data)
        written = self._file.tell() - offset
        assert written == size, f"{value.name}: {written} bytes written, {size} expected"
        name = os.path.basename(self.path)
        value.const_value = ir.ExternalTensor(name, offset, size, value.dtype, shape=value.shape, name=str(value.name))


@dataclass(frozen=True)
class QuantisationError:
    """Relative root-mean-square error of a quantised tensor: rms(w' - w) / rms(w)."""

    name: str
    value: float


def transposed(tensor: Tensor) -> Iterator[NDArray[np.float32]]:
    """(out, in) -> (in, out), a slice of inputs at a time, each of SLICE_BYTES or of one input."""
    source = tensor.stored()
    inputs = max(1, SLICE_BYTES // (4 * len(source)))
    for start in range(0, source.shape[1], inputs):
        yield tensor.widen(np.ascontiguousarray(source[:, start : start + inputs].T))


def write_quantised(
    data: ExternalData, graph: ir.Graph, name: str, tensor: Tensor, scheme: Scheme
) -> QuantisationError:
    """Quantises a matrix a chunk of rows at a time; the scales follow the integers in the file."""
    value, scale_value = graph.initializers[quantised_name(name)], graph.initializers[scales_name(name)]
    scales: list[NDArray[np.float32]] = []
    squares = np.zeros(2)  # of the error, of the weights

    def chunks() -> Iterator[NDArray[np.uint8]]:
        for rows in tensor.chunks():
            packed, scale = quantise(rows, scheme)
            error = dequantise(packed, scale, scheme, rows.shape[1]) - rows
            squares[:] += np.square(error, dtype=np.float64).sum(), np.square(rows, dtype=np.float64).sum()
            scales.append(scale)
            yield packed

    blocks = value.dtype == ir.DataType.UINT8  # MatMulNBits' layout is the quantiser's own; the other is (in, out)
    data.write(value, chunks() if blocks else [_linear(list(chunks()), scheme, tensor.shape[1])])
    joined = np.concatenate(scales)  # (out, blocks)
    if not blocks:
        joined = joined[:, 0] if scheme.block_size is None else joined.T
    data.write(scale_value, [joined.reshape(-1)])
    return QuantisationError(name, float(np.sqrt(squares[0] / squares[1])) if squares[1] else 0.0)


def _linear(packed: list[NDArray[np.uint8]], scheme: Scheme, inputs: int) -> NDArray[Any]:
    """DequantizeLinear's layout: int8 (in, out), or two neighbours of it a byte, the earlier one in the low half."""
    integers = np.concatenate([signed(rows, scheme, inputs) for rows in packed]).T
    if scheme.bits == 8:
        return integers
    pairs = np.ascontiguousarray(integers).reshape(-1, 2).view(np.uint8) & 15
    return pairs[:, 0] | pairs[:, 1] << 4
