"""Symmetric quantisation of a weight matrix in blocks along the input: float32 <-> packed integers and scales.

Integers are stored unsigned around a zero point of 2**(bits - 1), which is what com.microsoft MatMulNBits assumes where
none is given. Here blocks are rounded to nearest; `clipping` chooses better scales for blocks of 4 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hired_export.quantisation.clipping import clipped
from hired_export.quantisation.scheme import Scheme


def quantise(
    weight: NDArray[np.float32], scheme: Scheme, importance: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantises whole output channels.

    Args:
        weight: (outputs, inputs), as torch stores a linear layer.
        scheme: bits, block and method.
        importance: (inputs), at least 0: what the square of an input's error counts; for method "awq", where None
            counts all alike. Other methods have none.

    Returns:
        packed (outputs, blocks, bytes a block), for 4 bits the even input in the low half of a byte; and
        scales (outputs, blocks), above 0: weight = (packed - 2**(bits - 1)) * scale.
    """
    if scheme.method == "rtn":
        assert importance is None, scheme
        integers, scales = _rounded(weight, scheme)
    else:
        assert scheme.bits == 4, scheme
        assert scheme.block_size is not None, scheme
        assert importance is None or scheme.method == "awq", scheme
        integers, scales = clipped(weight, scheme.block_size, importance)
    if scheme.bits == 8:
        return integers, scales
    return integers[..., 0::2] + integers[..., 1::2] * np.uint8(16), scales


def _rounded(weight: NDArray[np.float32], scheme: Scheme) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """To the nearest step, of which a block's largest weight is 2**(bits - 1) - 1."""
    outputs, inputs = weight.shape
    block, blocks = scheme.storage_block, scheme.blocks(inputs)
    padded = np.zeros((outputs, blocks * block), np.float32)
    padded[:, :inputs] = weight
    grouped = padded.reshape(outputs, blocks, block)
    largest = np.abs(grouped).max(axis=2)
    if scheme.pairs:
        assert scheme.bits == 8, scheme
        largest = np.maximum(largest, np.abs(grouped[..., 0::2] + grouped[..., 1::2]).max(axis=2))
    if scheme.block_size is None:
        largest = np.broadcast_to(largest.max(axis=1, keepdims=True), largest.shape)
    zero_point = 1 << (scheme.bits - 1)
    # Rounded as fp16 targets store them, so that a weight is the same on every target.
    scales = (largest / (zero_point - 1)).astype(np.float16).astype(np.float32)
    scales[scales == 0] = 1  # of nothing but zeros: TensorRT's parser refuses a scale of 0
    integers = np.clip(np.rint(grouped / scales[..., None]) + zero_point, 1, 2 * zero_point - 1).astype(np.uint8)
    return integers, scales


def signed(packed: NDArray[np.uint8], scheme: Scheme, inputs: int) -> NDArray[np.int8]:
    """The integers themselves, (outputs, inputs), around 0."""
    integers = packed if scheme.bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1)
    around = integers.reshape(len(packed), -1)[:, :inputs].astype(np.int16) - (1 << (scheme.bits - 1))
    return around.astype(np.int8)


def dequantise(
    packed: NDArray[np.uint8], scales: NDArray[np.float32], scheme: Scheme, inputs: int
) -> NDArray[np.float32]:
    """The inverse of `quantise` up to rounding: (outputs, inputs)."""
    block = scheme.storage_block
    integers = signed(packed, scheme, scales.shape[1] * block).reshape(*scales.shape, block)
    return (integers * scales[..., None]).reshape(len(packed), -1)[:, :inputs]
