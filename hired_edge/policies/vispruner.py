"""VisPruner (arXiv 2412.01818, its later versions): half of a tile's tokens by attention, half by removing duplicates.

The half with the most CLS attention is kept. Of the rest, in falling order of attention, every other one is compared
with those between, and of the compared the (at most) eight most alike are dropped, round after round, until as many
are left as are wanted. Tile by tile, with that list order, as the public code does it; features here are the projected
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.policies.policy import Mask, Policy, View
from hired_edge.policies.shares import quotas
from hired_edge.policies.similarity import unit_rows

IMPORTANT = Fraction(1, 2)
_STEP = 8


def distinct(similarity: NDArray[np.float32], rest: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` of the patches `rest`, duplicates removed. `similarity`: cosines of all patches, (n, n)."""
    buffer, outside = np.empty_like(similarity), np.empty(len(similarity), np.float32)
    while len(rest) > count:
        compared, others = rest[::2], rest[1::2]
        if not len(others):  # one is left, and none is wanted
            return rest[:count]
        # Whole rows, with what is not among the others far below any cosine: three times as fast as picking columns.
        outside.fill(-4.0)
        outside[others] = 0.0
        rows = np.take(similarity, compared, axis=0, out=buffer[: len(compared)])
        rows += outside
        likeness = rows.max(axis=1)
        drop = min(_STEP, len(rest) - count, len(compared))
        order = np.argsort(-likeness, kind="stable")
        rest = np.concatenate([compared[order[drop:]], others])
    return rest


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    tiling, features = view.tiling, view.all_features()
    order = np.argsort(-np.where(tiling.eligible, view.selection_attention, -np.inf), axis=1, kind="stable")
    capacities = tiling.eligible.sum(axis=1)
    similarities = []
    for own in features:
        rows = unit_rows(own)
        similarities.append(rows @ rows.T)

    def keep(tokens: int) -> Mask:
        mask = np.zeros(tiling.eligible.shape, np.bool_)
        for i, quota in enumerate(quotas(tiling, tokens)):
            important = int(quota * IMPORTANT)
            kept, rest = np.split(order[i, : capacities[i]], [important])
            mask[i, kept] = True
            mask[i, distinct(similarities[i], rest, quota - important)] = True
        return mask

    return keep


VISPRUNER = Policy("vispruner", prepare, uses_alpha=False, needs=frozenset({"features"}), quick=False)
