"""HiRED as its public code of August 2024 allocated and selected, for reproducing published numbers.

On this project's geometry, so without that code's swap of grid height and width. It differs from the paper in five
ways: a sub-image's score counts top tokens instead of summing attention; sub-images are mapped onto horizontal stripes
of the base picture; remainders are lost; so is the surplus of a full sub-image; padding competes for the budget and
then vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.policies.policy import Mask, Policy, View, ranks
from hired_edge.tiling import Tiling


def stripe_counts(tiling: Tiling, allocation_attention: NDArray, alpha: Fraction) -> list[int]:
    """How many of the base picture's top floor(N * (1 - alpha)) tokens fall in each of T-1 equal runs of its raster."""
    patches, parts = tiling.rules.patches_per_tile, tiling.tiles - 1
    if parts == 0:
        return []
    top = ranks(allocation_attention[:1])[0] < math.floor(patches * (1 - alpha))
    stripe = np.arange(patches) * parts // patches
    return np.bincount(stripe[top], minlength=parts).tolist()


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    tiling = view.tiling
    patches = tiling.rules.patches_per_tile
    scores = stripe_counts(tiling, view.allocation_attention, alpha)
    total = sum(scores)
    places = ranks(view.selection_attention)
    eligible = tiling.eligible

    def keep(tokens: int) -> Mask:
        # A lone partition gets everything: the public code leaves alpha out for low-resolution models.
        base = min(math.floor(alpha * tokens) if scores else tokens, patches)
        rest = min(tokens - base, patches * len(scores))
        subs = [min(rest * score // total, patches) if total else 0 for score in scores]
        return (places < np.array([base, *subs])[:, None]) & eligible

    return keep


HIRED_2024 = Policy("hired-2024", prepare, strict=False, newlines="none")
