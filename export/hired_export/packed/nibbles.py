"""Words of 32 bits, little end first, with eight 4-bit integers each -> the integers.

An order says which of the eight neighbours lies in the word's nibble 0, 1, ...: `IN_ORDER`, or AutoAWQ's interleaved
one (awq/modules/linear/gemm.py, `order_map`), which suits the instructions that its GPU kernel unpacks with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PER_WORD = 8
Order = tuple[int, int, int, int, int, int, int, int]
IN_ORDER: Order = (0, 1, 2, 3, 4, 5, 6, 7)
INTERLEAVED: Order = (0, 2, 4, 6, 1, 3, 5, 7)


def unpack(words: NDArray[np.uint32], axis: int, order: Order) -> NDArray[np.uint8]:
    """(..., n, ...) words -> (..., 8 n, ...) integers 0 to 15.

    Args:
        words: of two axes.
        axis: along which eight neighbours share a word, 0 or 1.
    """
    rows, columns = words.shape
    shape = (rows, PER_WORD, columns) if axis == 0 else (rows, columns, PER_WORD)
    found = np.empty(shape, np.uint8)
    for nibble, neighbour in enumerate(order):
        place = found[:, neighbour] if axis == 0 else found[..., neighbour]
        np.bitwise_and(words >> np.uint32(4 * nibble), np.uint32(15), out=place, casting="unsafe")
    return found.reshape((rows * PER_WORD, columns) if axis == 0 else (rows, columns * PER_WORD))
