"""A baseline: n eligible patches at even distances in the order of the language model's sequence, whatever they show.

That order is the base picture's raster, then the mosaic's (`hired_edge.packing`).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from hired_edge.packing import stock_gather
from hired_edge.policies.policy import Mask, Policy, View


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`. Of E patches in n equal runs, the middle one of each: number floor((2 i + 1) E / 2 n)."""
    tiling = view.tiling
    order = stock_gather(tiling)
    order = order[order >= 0]

    def keep(tokens: int) -> Mask:
        count = min(tokens, len(order))
        mask = np.zeros(tiling.patches, dtype=np.bool_)
        mask[order[(2 * np.arange(count) + 1) * len(order) // (2 * max(count, 1))]] = True
        return mask.reshape(tiling.tiles, -1)

    return keep


UNIFORM = Policy("uniform", prepare, uses_alpha=False)
