"""DivPrune (arXiv 2503.02175): the kept tokens are to lie as far from each other as possible; attention plays no part.

Farthest-point selection by 1 - cosine over all of a picture's patches together: first the one whose nearest neighbour
is farthest, then always the one farthest from its nearest kept one. As the public code does it, but newlines are not
among the candidates (the newline policy gives them) and a tie goes to the earlier token of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.packing import stock_gather
from hired_edge.policies.policy import Mask, Policy, View
from hired_edge.policies.shares import Picks
from hired_edge.policies.similarity import unit_rows


def picks(similarity: NDArray[np.float32]) -> Iterator[int]:
    """Patches in the order in which they are chosen, all n of them. `similarity`: cosines (n, n), overwritten."""
    np.fill_diagonal(similarity, -2.0)  # below every cosine: nobody is its own neighbour
    nearest = similarity.max(axis=1)
    best = int(np.argmin(nearest))
    nearest = np.full(len(similarity), -2.0, np.float32)
    for _ in range(len(similarity)):
        yield best
        np.maximum(nearest, similarity[best], out=nearest)
        nearest[best] = np.inf
        best = int(np.argmin(nearest))


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    order = stock_gather(view.tiling)
    order = order[order >= 0]
    features = view.all_features()
    rows = unit_rows(features.reshape(-1, features.shape[-1])[order])
    chosen = Picks(picks(rows @ rows.T))

    def keep(tokens: int) -> Mask:
        mask = np.zeros(view.tiling.patches, np.bool_)
        mask[order[chosen.first(min(tokens, len(order)))]] = True
        return mask.reshape(view.tiling.tiles, -1)

    return keep


DIVPRUNE = Policy("divprune", prepare, uses_alpha=False, needs=frozenset({"features"}))
