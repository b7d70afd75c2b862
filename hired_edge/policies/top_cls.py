"""Top-k by CLS attention in every partition, as FasterVLM (arXiv 2412.01818) prunes: HiRED without its allocation.

Every partition keeps the same share of its eligible patches; the scores are this project's selection attention.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from hired_edge.policies.policy import Mask, Policy, View, ranks
from hired_edge.policies.shares import quotas


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    tiling = view.tiling
    places = ranks(np.where(tiling.eligible, view.selection_attention, -np.inf))

    def keep(tokens: int) -> Mask:
        return places < np.array(quotas(tiling, tokens))[:, None]

    return keep


TOP_CLS = Policy("top-cls", prepare, uses_alpha=False)
