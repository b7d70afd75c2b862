"""Top-k by CLS attention in every partition, as FasterVLM (arXiv 2412.01818) prunes: HiRED without its allocation.

Every partition keeps the same share of its eligible patches; the scores are this project's selection attention.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.budget import apportion
from hired_edge.policies.policy import Mask, Policy, ranks
from hired_edge.tiling import Tiling


def prepare(
    tiling: Tiling, allocation_attention: NDArray, selection_attention: NDArray, alpha: Fraction
) -> Callable[[int], Mask]:
    """See `Prepare`. Shares by largest remainders, so that they sum to n; ties to the lower index."""
    capacities = tiling.eligible.sum(axis=1).tolist()
    places = ranks(np.where(tiling.eligible, selection_attention, -np.inf))

    def keep(tokens: int) -> Mask:
        # No share exceeds its capacity: n c / E is at most c, and is below c wherever it is rounded up.
        counts = apportion(min(tokens, tiling.eligible_tokens), capacities)
        return places < np.array(counts)[:, None]

    return keep


TOP_CLS = Policy("top-cls", prepare, uses_alpha=False)
