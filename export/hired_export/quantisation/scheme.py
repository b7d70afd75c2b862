"""How a matrix is stored, and how its scales are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from hired_edge.manifest import Method

METHODS: tuple[Method, ...] = get_args(Method)
BLOCK_SIZES = (32, 64, 128)
STORAGE_BLOCK = 128
"""Block of a per-channel scheme in storage: the channel's scale is repeated, since kernels for blocks are faster."""


@dataclass(frozen=True)
class Scheme:
    """How a matrix is stored.

    Args:
        bits: 4 or 8.
        block_size: inputs that share a scale; None = the whole channel (one output's inputs).
        method: how scales are chosen: "rtn", the largest weight of a block decides; "hqq", the smallest error of its
            weights; "awq", the smallest error of what they add to the outputs. The last two are for blocks of 4 bits.
        pairs: of 8 bits a channel, rounded to nearest: no two neighbouring inputs 2j, 2j + 1 add up to more than 128
            steps, so that their products with unsigned bytes add up in 16 bits (lowering/vision_int8.py).
    """

    bits: int
    block_size: int | None
    method: Method = "rtn"
    pairs: bool = False

    @property
    def storage_block(self) -> int:
        return self.block_size or STORAGE_BLOCK

    def blocks(self, inputs: int) -> int:
        """Blocks of one output channel of `inputs` weights; the last one is padded with zeros."""
        return -(-inputs // self.storage_block)

    def bytes_per_block(self) -> int:
        return self.storage_block * self.bits // 8
