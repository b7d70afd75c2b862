"""The embedding table as a bundle stores it: rows of a float type, or of int8 with a scale each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hired_edge.tensorfile import DTYPES, TensorWriter
from hired_export.external import refusing_overflow
from hired_export.progress import OnBytes
from hired_export.tensor import Tensor

Floats = NDArray[np.float32]

LARGEST = 127


def write_embedding(
    path: Path, table: Tensor, newline: Tensor | None, dtype: Literal["F32", "F16", "I8"], on_bytes: OnBytes
) -> float | None:
    """Writes `embed_tokens` (V, D) and, where the family has one, `image_newline` (D), which is never of int8.

    With "I8", row v is `embed_tokens[v] * embed_tokens.scales[v]`; the scales are float32.

    Returns:
        The relative root-mean-square error of rounding to int8; None for a float type.

    Raises:
        CheckpointError: numbers too large for the type.
    """
    floats = "F32" if dtype == "I8" else dtype
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"embed_tokens": (dtype, table.shape)}
    if dtype == "I8":
        tensors["embed_tokens.scales"] = ("F32", table.shape[:1])
    if newline is not None:
        tensors["image_newline"] = (floats, newline.shape)
    scales: list[Floats] = []
    squares = np.zeros(2)  # of the error, of the numbers
    with TensorWriter(path, tensors) as writer, refusing_overflow("embed_tokens or image_newline"):
        for rows in table.chunks():
            if dtype == "I8":
                stored, scale = rows_to_int8(rows)
                scales.append(scale)
                error = stored * scale[:, None] - rows
                squares += [np.square(each, dtype=np.float64).sum() for each in (error, rows)]
            else:
                stored = rows.astype(DTYPES[dtype])
            writer.write("embed_tokens", stored)
            on_bytes(rows.nbytes)
        if scales:
            writer.write("embed_tokens.scales", np.concatenate(scales))
        if newline is not None:
            for rows in newline.chunks():
                writer.write("image_newline", rows.astype(DTYPES[floats]))
    if dtype != "I8":
        return None
    return float(np.sqrt(squares[0] / squares[1])) if squares[1] else 0.0


def rows_to_int8(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    """(V, D) -> integers -127 to 127, (V, D), and scales above 0, (V): the nearest multiples of each row's scale."""
    scales = np.abs(rows).max(axis=1) / np.float32(LARGEST)
    scales[scales == 0] = 1  # of nothing but zeros
    return np.rint(rows / scales[:, None]).astype(np.int8), scales
