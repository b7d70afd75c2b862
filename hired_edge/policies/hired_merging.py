"""HiRED with a merging term, an experiment: what it drops is averaged into what it keeps. Not the paper's.

Every dropped patch goes to the kept patch of its tile whose features are nearest by cosine; a kept token becomes the
mean of itself and what went to it. What this does to the demonstration model's answers is in docs/accuracy.md.
"""

from __future__ import annotations

import numpy as np

from hired_edge.policies.hired import prepare
from hired_edge.policies.policy import Mask, Merge, Policy, View, joined
from hired_edge.policies.similarity import unit_rows


def merge(view: View, mask: Mask) -> Merge:
    """See `Policy.merge`."""
    parts, features = [], view.all_features()
    for tile, (kept, eligible) in enumerate(zip(mask, view.tiling.eligible, strict=True)):
        chosen, patches = np.flatnonzero(kept), np.flatnonzero(eligible)
        if not len(chosen):
            continue
        rows = unit_rows(features[tile])
        target = chosen[np.argmax(rows[patches] @ rows[chosen].T, axis=1)]
        target[np.searchsorted(patches, chosen)] = chosen  # a kept patch is its own, even where another is equal to it
        members = np.bincount(target, minlength=len(kept))
        first = tile * len(kept)
        parts.append(Merge(first + target, first + patches, (1 / members[target]).astype(np.float32)))
    return joined(parts)


HIRED_MERGING = Policy("hired-merging", prepare, needs=frozenset({"features"}), merge=merge)
