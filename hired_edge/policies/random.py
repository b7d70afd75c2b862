"""A baseline: n eligible patches drawn uniformly over all partitions, without replacement.

The seed is the picture's selection attention itself, every bit of its float32 values: two pictures of one size get
different draws, and equal attention an equal one. But the last bits of attention differ between processors and between
versions of an engine, and one bit makes another draw: the draw is reproducible on the same backend only, and on another
machine the same picture may well lose other patches. Draws for smaller n are nested in those for larger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from hired_edge.policies.policy import Mask, Policy, View

_SALT = b"hired-edge random policy 1"


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`. One random order of the eligible patches; the first n are kept."""
    tiling = view.tiling
    seen = hashlib.sha256(_SALT + np.ascontiguousarray(view.selection_attention, "<f4").tobytes())
    # Raw 64-bit numbers, sorted: numpy promises a bit generator's stream, but not `Generator.permutation`'s.
    keys = np.random.PCG64(int.from_bytes(seen.digest(), "little")).random_raw(tiling.patches)
    chosen = np.flatnonzero(tiling.eligible)
    places = np.full(tiling.patches, tiling.patches, dtype=np.int64)
    places[chosen[np.argsort(keys[chosen], kind="stable")]] = np.arange(len(chosen))

    def keep(tokens: int) -> Mask:
        return (places < min(tokens, len(chosen))).reshape(tiling.tiles, -1)

    return keep


RANDOM = Policy("random", prepare, uses_alpha=False)
