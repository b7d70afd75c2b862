"""SCOPE (arXiv 2510.24214): what covers most of the rest of its tile and is attended to, picked one by one.

A patch's gain is how much closer the tile's patches would come to their nearest kept one: the sum over patches i of
max(0, cos(i, j) - best so far); its score is that gain times its CLS attention (alpha = 1). Tile by tile, as the public
code does it; unlike there, features are the projected ones, no remainder is lost and padding takes no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hired_edge.policies.policy import Mask, Policy, View
from hired_edge.policies.shares import greedy_by_tile, quotas
from hired_edge.policies.similarity import unit_rows


def picks(similarity: NDArray[np.float32], attention: NDArray[np.float32]) -> Iterator[int]:
    """Patches in the order in which they are chosen, all n of them; ties go to the lower index.

    Args:
        similarity: cosines, (n, n), symmetric.
        attention: (n,).
    """
    covered = np.zeros(len(similarity), np.float32)
    gain = np.maximum(similarity, 0).sum(axis=0).astype(np.float64)
    left = np.ones(len(similarity), np.bool_)
    for _ in range(len(similarity)):
        # What rounding leaves of a gain is never below 0, or much attention would count against a patch.
        best = int(np.argmax(np.where(left, np.maximum(gain, 0) * attention, -1.0)))
        yield best
        left[best] = False
        closer = np.flatnonzero(similarity[best] > covered)  # only these rows of the sum change
        rows, before, after = similarity[closer], covered[closer, None], similarity[best, closer, None]
        gain -= np.minimum(np.maximum(rows - before, 0), after - before).sum(axis=0)
        covered[closer] = similarity[best, closer]


def tile_picks(view: View) -> Callable[[int, NDArray[np.int64]], Iterator[int]]:
    """What picks from a partition, as `greedy_by_tile` asks it to."""
    features = view.all_features()

    def of_tile(partition: int, patches: NDArray[np.int64]) -> Iterator[int]:
        own = features[partition]
        rows = unit_rows(own if len(patches) == len(own) else own[patches])
        return picks(rows @ rows.T, view.selection_attention[partition, patches])

    return of_tile


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    return greedy_by_tile(view.tiling, tile_picks(view), partial(quotas, view.tiling))


SCOPE = Policy("scope", prepare, uses_alpha=False, needs=frozenset({"features"}))
