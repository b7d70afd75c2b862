"""Scales of symmetric 4-bit blocks by search: the one that leaves the smallest error, without or with calibration.

Half-Quadratic Quantization (Badri and Shaji, 2023) alternates between integers and zero points; a symmetric block has
only its scale s to be chosen. For the integers q of any scale, the best s for these integers is a ratio of two sums,
sum(h w q) / sum(h q q), so every candidate of a small grid is improved once at no cost. Weights beyond 7 steps (8 below
zero) are clipped. h is 1, or the mean square of the input that a weight is multiplied with (AWQ, Lin et al., 2023).
The norm is the square: one with p < 1, as HQQ has it for zero points, gives up a block's largest weights (docs/log.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LOWEST, HIGHEST = -8, 7
CANDIDATES = tuple(np.float32(ratio) for ratio in np.linspace(0.55, 1.0, 10))
"""Shares of the scale that clips nothing."""
SLAB = 2**16
"""Weights at a time: what is computed from them stays in a core's cache."""
_SMALLEST = np.float32(2.0**-24)
"""The smallest scale that fp16 holds."""


def clipped(weight: Floats, block: int, importance: Floats | None) -> tuple[NDArray[np.uint8], Floats]:
    """Integers and scales of a matrix.

    Args:
        weight: (outputs, inputs).
        block: inputs that share a scale.
        importance: (inputs), at least 0: what an input's squared error counts; None = all alike.

    Returns:
        integers (outputs, blocks, block) around 8, 0 behind the last input being 8; scales (outputs, blocks), numbers
        of fp16, above 0. A block's error is at most what rounding to nearest leaves.
    """
    outputs, inputs = weight.shape
    blocks = -(-inputs // block)
    integers, scales = np.empty((outputs, blocks, block), np.uint8), np.empty((outputs, blocks), np.float32)
    counts = None
    if importance is not None:
        counts = np.zeros(blocks * block, np.float32)
        counts[:inputs] = importance
        counts = np.ascontiguousarray(counts.reshape(blocks, block).T)[:, None, :]  # (block, 1, blocks)

    rows = max(1, SLAB // (blocks * block))
    for start in range(0, outputs, rows):
        span = slice(start, start + rows)
        columns = _columns(weight[span], block, blocks)
        scale = scales[span] = _best(columns, counts)
        np.add(_integers(columns, scale, LOWEST), -LOWEST, out=columns)
        integers[span] = columns.transpose(1, 2, 0)
    return integers, scales


def _columns(rows: Floats, block: int, blocks: int) -> Floats:
    """(outputs, inputs) -> a copy (block, outputs, blocks), zeros behind the last input: sums run along axis 0."""
    padded = rows
    if rows.shape[1] != blocks * block:
        padded = np.zeros((len(rows), blocks * block), np.float32)
        padded[:, : rows.shape[1]] = rows
    return np.array(padded.reshape(len(rows), blocks, block).transpose(2, 0, 1), order="C")


def _best(columns: Floats, counts: Floats | None) -> Floats:
    """The scale of each block, (outputs, blocks)."""
    plain = _half(np.abs(columns).max(axis=0) / HIGHEST)
    weighted = columns if counts is None else columns * counts
    gain, found = np.full_like(plain, -1), plain
    for ratio in CANDIDATES:
        q = _integers(columns, plain * ratio, LOWEST)
        products = np.einsum("bon,bon->on", q, weighted)
        np.multiply(q, q, out=q)
        squares = q.sum(axis=0) if counts is None else np.einsum("bon,bxn->on", q, counts)
        with np.errstate(divide="ignore", invalid="ignore"):  # where nothing counts, nothing is gained
            scale = products / squares
        better = products * scale > gain  # the error is sum(h w w) less this
        gain, found = np.where(better, products * scale, gain), np.where(better, scale, found)
    found = np.maximum(_half(found), _SMALLEST)
    # Rounded to fp16, a scale may have lost its advantage.
    kept = _error(columns, found, LOWEST, counts) <= _error(columns, plain, -HIGHEST, counts)
    return np.where(kept, found, plain)


def _half(scales: Floats) -> Floats:
    """Rounded as fp16 targets store them; 1 where it is nothing, since TensorRT's parser refuses a scale of 0."""
    rounded = scales.astype(np.float16).astype(np.float32)
    rounded[rounded == 0] = 1
    return rounded


def _integers(columns: Floats, scale: Floats, lowest: int) -> Floats:
    q = columns / scale
    np.rint(q, out=q)
    return np.clip(q, lowest, HIGHEST, out=q)


def _error(columns: Floats, scale: Floats, lowest: int, counts: Floats | None) -> Floats:
    """sum(h (w - s q)**2) of each block."""
    e = _integers(columns, scale, lowest)
    e *= scale
    e -= columns
    np.multiply(e, e, out=e)
    return e.sum(axis=0) if counts is None else np.einsum("bon,bxn->on", e, counts)
