"""A checkpoint's own 4 bits in a bundle's blocks: as they are where they fit, else the nearest that fits.

A bundle's int4 is symmetric, -8 to 7 steps (TensorRT takes no other). A block whose integers lie there once the zero
point is taken off is stored as it is: every block of a symmetric checkpoint, and many of an asymmetric one. Of the
others the outermost integers are clipped, or the block is quantised anew, whichever is nearer. Clipping keeps the
checkpoint's own grid, so most of its weights stay exact: on normally distributed weights quantised with zero points in
groups of 128, it leaves 0.034 of relative error where rounding everything to nearest anew leaves 0.115
(tests/host/test_packed_matrices.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hired_export.quantisation import Scheme, dequantise, quantise

if TYPE_CHECKING:
    from hired_export.packed.matrix import PackedRows

LOWEST, HIGHEST = -8, 7
Stored = tuple[NDArray[np.uint8], NDArray[np.float32]]


def stored(rows: PackedRows, weights: NDArray[np.float32], group: int, scheme: Scheme) -> Stored:
    """As `quantisation.quantise` gives it: packed (outputs, blocks, bytes a block) and scales (outputs, blocks).

    Args:
        rows: what the checkpoint holds.
        weights: the same as float32.
        group: inputs that share a scale in the checkpoint.
        scheme: the bundle's. Of another number of bits, or of blocks that do not divide a group, it can keep nothing.
    """
    block = scheme.block_size
    if scheme.bits != 4 or block is None or group % block or rows.groups is not None:
        return quantise(weights, scheme)
    scales = np.repeat(rows.scales, group // block, axis=1)  # (outputs, blocks)
    integers = rows.integers.reshape(*scales.shape, block)
    negative = scales < 0  # of no symmetric quantiser but AutoRound's: TensorRT refuses them
    if negative.any():
        integers = np.where(negative[..., None], -integers, integers)
    # Rounded as fp16 targets store them, which changes nothing of what is fp16 already, nor of bf16 above 2**-14.
    rounded = np.abs(scales).astype(np.float16).astype(np.float32)
    nothing = rounded == 0
    if nothing.any():
        integers, rounded = np.where(nothing[..., None], 0, integers), np.where(nothing, np.float32(1), rounded)
    kept = np.clip(integers, LOWEST, HIGHEST)
    packed = _pack(kept)
    beyond = (kept != integers).any(axis=2)
    if beyond.any():
        _mend(packed, rounded, kept, weights.reshape(integers.shape), beyond, scheme)
    return packed, rounded


def _mend(
    packed: NDArray[np.uint8],
    scales: NDArray[np.float32],
    clipped: NDArray[np.int8],
    weights: NDArray[np.float32],
    beyond: NDArray[np.bool_],
    scheme: Scheme,
) -> None:
    """Replaces those clipped blocks that are nearer to `weights` when quantised anew, in place."""
    places = np.argwhere(beyond)
    wanted = weights[beyond]  # (blocks beyond, inputs of a block)
    anew, new_scales = quantise(wanted, scheme)
    error_anew = np.square(dequantise(anew, new_scales, scheme, scheme.storage_block) - wanted).sum(axis=1)
    error_clipped = np.square(clipped[beyond] * scales[beyond][:, None] - wanted).sum(axis=1)
    better = error_anew < error_clipped
    rows, columns = places[better].T
    packed[rows, columns] = anew[better, 0]
    scales[rows, columns] = new_scales[better, 0]


def _pack(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """(..., n) around 0 -> (..., n / 2) bytes around 8, the even one in the low half."""
    around = (integers + np.int8(8)).astype(np.uint8)
    return around[..., 0::2] | around[..., 1::2] * np.uint8(16)
