"""A baseline: n eligible patches drawn uniformly over all partitions, without replacement.

The draw is reproducible and a picture's own: it is seeded with the picture's selection attention, so two pictures of
one size get different draws, and the same maps the same one on every machine. Draws for smaller n are nested in larger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.policies.policy import Mask, Policy
from hired_edge.tiling import Tiling

_SALT = b"hired-edge random policy 1"


def prepare(
    tiling: Tiling, allocation_attention: NDArray, selection_attention: NDArray, alpha: Fraction
) -> Callable[[int], Mask]:
    """See `Prepare`. One random order of the eligible patches; the first n are kept."""
    seen = hashlib.sha256(_SALT + np.ascontiguousarray(selection_attention, "<f4").tobytes())
    # Raw 64-bit numbers, sorted: numpy promises a bit generator's stream, but not `Generator.permutation`'s.
    keys = np.random.PCG64(int.from_bytes(seen.digest(), "little")).random_raw(tiling.patches)
    chosen = np.flatnonzero(tiling.eligible)
    places = np.full(tiling.patches, tiling.patches, dtype=np.int64)
    places[chosen[np.argsort(keys[chosen], kind="stable")]] = np.arange(len(chosen))

    def keep(tokens: int) -> Mask:
        return (places < min(tokens, len(chosen))).reshape(tiling.tiles, -1)

    return keep


RANDOM = Policy("random", prepare, uses_alpha=False)
