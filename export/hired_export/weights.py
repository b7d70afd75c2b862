"""Weights from a checkpoint into a graph's external data, one tensor at a time and never the model.

An initialiser is written as chunks of rows: the checkpoint's own, of the transposed matrix, or quantised.
A matrix to be transposed is the largest thing held: the source tensor in its stored type, or its integers where it is
quantised, and a slice of the result.
Offsets are aligned to 64 bytes, from 1 MiB on to 4096, so that a runtime may map them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hired_edge.errors import CheckpointError
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

        Raises:
            CheckpointError: a number is beyond the type that it is stored in.
        """
        assert value.shape is not None
        assert value.dtype is not None
        size = int(math.prod(value.shape.numpy()) * value.dtype.itemsize)  # an itemsize may be half a byte
        alignment = 4096 if size >= 2**20 else 64
        offset = -(-self._file.tell() // alignment) * alignment
        self._file.write(bytes(offset - self._file.tell()))
        rounded = value.dtype.numpy() if value.dtype.is_floating_point() else None
        with refusing_overflow(str(value.name)):
            for chunk in chunks:
                self._file.write(np.ascontiguousarray(chunk, rounded).data)
        written = self._file.tell() - offset
        assert written == size, f"{value.name}: {written} bytes written, {size} expected"
        name = os.path.basename(self.path)
        value.const_value = ir.ExternalTensor(name, offset, size, value.dtype, shape=value.shape, name=str(value.name))


@contextlib.contextmanager
def refusing_overflow(name: str) -> Iterator[None]:
    """Numbers of the tensor `name` that are too large for the type they are rounded to are an error, not infinity."""
    try:
        with np.errstate(over="raise"):
            yield
    except FloatingPointError:
        raise CheckpointError(
            f"tensor {name} holds numbers too large for the type that it is stored in",
            expected="float16 weights and scales of at most 65504",
            fix="export with --target cpu --precision fp32, or use another checkpoint",
        ) from None


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
    data.write(value, chunks() if blocks else _linear(chunks(), scheme, tensor.shape[1]))
    joined = np.concatenate(scales)  # (out, blocks)
    if not blocks:
        joined = joined[:, 0] if scheme.block_size is None else joined.T
    data.write(scale_value, [joined.reshape(-1)])
    return QuantisationError(name, float(np.sqrt(squares[0] / squares[1])) if squares[1] else 0.0)


def _linear(chunks: Iterable[NDArray[np.uint8]], scheme: Scheme, inputs: int) -> Iterator[NDArray[Any]]:
    """DequantizeLinear's layout: int8 (in, out), or two neighbours of it a byte, the earlier one in the low half.

    Args:
        chunks: of the whole matrix, (out, blocks, bytes), which is held; each result is of some blocks of inputs.
    """
    packed = list(chunks)
    blocks = max(1, SLICE_BYTES // (scheme.storage_block * sum(map(len, packed))))
    width = blocks * scheme.storage_block
    for i, start in enumerate(range(0, inputs, width)):
        parts = [rows[:, i * blocks : (i + 1) * blocks] for rows in packed]
        integers = np.concatenate([signed(part, scheme, min(width, inputs - start)) for part in parts]).T
        if scheme.bits == 8:
            yield integers
        else:
            pairs = np.ascontiguousarray(integers).reshape(-1, 2).view(np.uint8) & 15
            yield pairs[:, 0] | pairs[:, 1] << 4
