"""HiRED as the paper has it (arXiv 2408.10945, section 3), strict: exactly the budget, padding never kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.budget import allocate, exact_weights
from hired_edge.policies.policy import Mask, Policy, View, ranks
from hired_edge.tiling import Tiling


def sub_image_scores(tiling: Tiling, allocation_attention: NDArray) -> list[float]:
    """s_i, the base picture's attention over the area of each sub-image (Eq. 1), T-1; 0 where nothing is eligible."""
    weighted = (tiling.coverage * allocation_attention[0].astype(np.float64)).tolist()
    capacities = tiling.eligible[1:].sum(axis=1).tolist()
    # fsum rounds once, whatever the order: every machine gets the same scores.
    return [math.fsum(row) if capacity else 0.0 for row, capacity in zip(weighted, capacities, strict=True)]


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`. Phase 1 is `allocate`; phase 2 keeps the best N_p of partition p by selection attention."""
    return two_phases(view, sub_image_scores(view.tiling, view.allocation_attention), alpha)


def two_phases(
    view: View, scores: Sequence[float], alpha: Fraction, ranking: NDArray | None = None
) -> Callable[[int], Mask]:
    """Both phases, with any scores of the sub-images (T-1,) and any ranking (T, N), by default the paper's."""
    eligible, weights = view.tiling.eligible, exact_weights(scores)
    capacities = eligible.sum(axis=1).tolist()
    places = ranks(np.where(eligible, view.selection_attention if ranking is None else ranking, -np.inf))

    def keep(tokens: int) -> Mask:
        counts = allocate(tokens, weights, capacities, alpha)
        return places < np.array(counts)[:, None]

    return keep


HIRED = Policy("hired", prepare)
HIRED_PLACED = Policy("hired-placed", prepare, positions="original")
"""The same tokens, but for the rotary embedding each keeps its place in the whole sequence. Not the paper's, which
renumbers them and names the spatial information lost by that as its limitation (docs/accuracy.md)."""
