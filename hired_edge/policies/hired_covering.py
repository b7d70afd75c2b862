"""HiRED with a coverage term in its second phase, an experiment. Not the paper's.

Phase 1 is HiRED's (arXiv 2408.10945, Eq. 1). In phase 2 a partition's N_p tokens are SCOPE's first N_p picks
(arXiv 2510.24214): attention times what a patch adds to the coverage of its tile, so that near-copies of a kept patch
are not kept as well. What this does to the demonstration model's answers is in docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from hired_edge.budget import allocate, exact_weights
from hired_edge.policies.hired import sub_image_scores
from hired_edge.policies.policy import Mask, Policy, View
from hired_edge.policies.scope import tile_picks
from hired_edge.policies.shares import greedy_by_tile


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    weights = exact_weights(sub_image_scores(view.tiling, view.allocation_attention))
    capacities = view.tiling.eligible.sum(axis=1).tolist()
    return greedy_by_tile(view.tiling, tile_picks(view), lambda tokens: allocate(tokens, weights, capacities, alpha))


HIRED_COVERING = Policy("hired-covering", prepare, needs=frozenset({"features"}))
