"""Symmetric round-to-nearest quantisation of a weight matrix, in blocks along the input, in numpy.

Integers are stored unsigned around a zero point of 2**(bits - 1), which is what com.microsoft MatMulNBits assumes where
none is given. Calibration (AWQ, half-quadratic scales) is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_SIZES = (32, 64, 128)
STORAGE_BLOCK = 128
"""Block of a per-channel scheme in storage: the channel's scale is repeated, since kernels for blocks are faster."""


@dataclass(frozen=True)
class Scheme:
    """How a matrix is stored.

    Args:
        bits: 4 or 8.
        block_size: inputs that share a scale; None = the whole channel (one output's inputs).
    """

    bits: int
    block_size: int | None

    @property
    def storage_block(self) -> int:
        return self.block_size or STORAGE_BLOCK

    def blocks(self, inputs: int) -> int:
        """Blocks of one output channel of `inputs` weights; the last one is padded with zeros."""
        return -(-inputs // self.storage_block)

    def bytes_per_block(self) -> int:
        return self.storage_block * self.bits // 8


def quantise(weight: NDArray[np.float32], scheme: Scheme) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantises whole output channels.

    Args:
        weight: (outputs, inputs), as torch stores a linear layer.
        scheme: bits and block.

    Returns:
        packed (outputs, blocks, bytes a block), for 4 bits the even input in the low half of a byte; and
        scales (outputs, blocks), above 0: weight = (packed - 2**(bits - 1)) * scale.
    """
    outputs, inputs = weight.shape
    block, blocks = scheme.storage_block, scheme.blocks(inputs)
    padded = np.zeros((outputs, blocks * block), np.float32)
    padded[:, :inputs] = weight
    grouped = padded.reshape(outputs, blocks, block)
    largest = np.abs(grouped).max(axis=2)
    if scheme.block_size is None:
        largest = np.broadcast_to(largest.max(axis=1, keepdims=True), largest.shape)
    zero_point = 1 << (scheme.bits - 1)
    # Rounded as fp16 targets store them, so that a weight is the same on every target.
    scales = (largest / (zero_point - 1)).astype(np.float16).astype(np.float32)
    scales[scales == 0] = 1  # of nothing but zeros: TensorRT's parser refuses a scale of 0
    integers = np.clip(np.rint(grouped / scales[..., None]) + zero_point, 1, 2 * zero_point - 1).astype(np.uint8)
    if scheme.bits == 8:
        return integers, scales
    return integers[..., 0::2] + integers[..., 1::2] * np.uint8(16), scales


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
