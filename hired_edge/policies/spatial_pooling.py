"""A baseline that looks at nothing: base picture and mosaic are shrunk by averaging, both by the same factor.

The paper's Table 3 names spatial pooling after Marin et al. (WACV 2023) without saying how it is done. Here the s x s
cells of the base picture and the r x c cells of the mosaic that survives `unpad` are averages of all the patches that
they touch (adaptive average pooling), with the largest s that the budget allows. A cell stands where the middle one of
its patches does, so that a pooled row of the mosaic gets one newline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.policies.policy import Mask, Merge, Policy, View, joined
from hired_edge.tiling import Tiling


def cells(tiling: Tiling, side: int) -> list[tuple[int, int]]:
    """(rows, columns) of the pooled base picture and of the pooled mosaic for a base picture of `side` cells."""
    full = tiling.rules.patches_per_side
    mosaic = (tiling.rows * side // full, tiling.columns * side // full)
    return [(side, side), mosaic if min(mosaic) else (0, 0)]


def _maps(tiling: Tiling) -> list[NDArray[np.int64]]:
    """The base picture's and the mosaic's flat patches, as they lie."""
    side = tiling.rules.patches_per_side
    return [np.arange(side * side).reshape(side, side), tiling.window_index]


def _bounds(length: int, parts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and behind-the-last patch of each of `parts` cells along a side."""
    places = np.arange(parts)
    return places * length // max(parts, 1), -(-(places + 1) * length // max(parts, 1))


def _kept(tiling: Tiling, side: int) -> Iterator[NDArray[np.int64]]:
    """The middle patch of every cell, flat; the base picture's, then the mosaic's."""
    for patches, (rows, columns) in zip(_maps(tiling), cells(tiling, side), strict=True):
        middles = [(a + b - 1) // 2 for a, b in (_bounds(patches.shape[0], rows), _bounds(patches.shape[1], columns))]
        yield patches[np.ix_(*middles)].reshape(-1)


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`. Without the mosaic where not even a cell of it fits; nothing for no token."""
    tiling = view.tiling
    sizes = [sum(rows * columns for rows, columns in cells(tiling, side)) for side in range(_sides(tiling) + 1)]

    def keep(tokens: int) -> Mask:
        mask = np.zeros(tiling.patches, np.bool_)
        side = max(side for side, size in enumerate(sizes) if size <= tokens)
        for kept in _kept(tiling, side):
            mask[kept] = True
        return mask.reshape(tiling.tiles, -1)

    return keep


def merge(view: View, mask: Mask) -> Merge:
    """Every kept patch becomes the average of its cell."""
    tiling = view.tiling
    side = round(int(mask[0].sum()) ** 0.5)
    parts: list[Merge] = []
    for patches, (rows, columns), kept in zip(_maps(tiling), cells(tiling, side), _kept(tiling, side), strict=True):
        down, across = _bounds(patches.shape[0], rows), _bounds(patches.shape[1], columns)
        for cell, patch in enumerate(kept.tolist()):
            row, column = divmod(cell, columns)
            of_cell = patches[down[0][row] : down[1][row], across[0][column] : across[1][column]].reshape(-1)
            count = len(of_cell)
            parts.append(Merge(np.full(count, patch), of_cell, np.full(count, 1 / count, np.float32)))
    return joined(parts)


def _sides(tiling: Tiling) -> int:
    return tiling.rules.patches_per_side


SPATIAL_POOLING = Policy("spatial-pooling", prepare, strict=False, uses_alpha=False, merge=merge)
