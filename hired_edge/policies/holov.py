"""HoloV (arXiv 2510.02912, section 4.1): quotas for sixteen crops, so that no part of the picture is left out.

The sequence of a picture's patches is cut into sixteen runs. A patch's score is its CLS attention plus the variance of
its cosines to its run, scaled to attention's mean; a run's quota goes by its mean score; what exceeds a run's length
goes, by the same weights, to runs with room. Within a run the best scores stay. That is the paper with tau = 1 (its
value is not in the text). The public code differs: its quotas come to a run's mean attention, it ranks by attention
alone, and fills what overflows with zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.budget import allocate, exact_weights
from hired_edge.packing import stock_gather
from hired_edge.policies.policy import Mask, Policy, View, ranks
from hired_edge.policies.similarity import unit_rows

CROPS = 16


def scores(features: NDArray[np.float32], attention: NDArray[np.float32]) -> NDArray[np.float64]:
    """A run's attention plus the scaled variance of similarities, (n,). `features`: (n, D); `attention`: (n,)."""
    rows = unit_rows(features)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, 0)
    others = max(len(rows) - 1, 1)
    mean = similarity.sum(axis=1, keepdims=True) / others
    variance = ((similarity - mean) ** 2).sum(axis=1, dtype=np.float64) / others
    scale = float(attention.mean(dtype=np.float64)) / max(float(variance.mean()), 1e-12)
    return attention + scale * variance


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    order = stock_gather(view.tiling)
    order = order[order >= 0]
    features = view.all_features()
    flat, attention = features.reshape(-1, features.shape[-1]), view.selection_attention.reshape(-1)
    runs = [run for run in np.array_split(order, CROPS) if len(run)]
    scored = [scores(flat[run], attention[run]) for run in runs]
    weights = exact_weights([float(each.mean()) for each in scored])
    places = [ranks(each[None])[0] for each in scored]
    lengths = [len(run) for run in runs]

    def keep(tokens: int) -> Mask:
        # `allocate` with an empty base picture: shares by weight, overflow to runs with room.
        quotas = allocate(tokens, weights, [0, *lengths], Fraction(0))[1:]
        mask = np.zeros(view.tiling.patches, np.bool_)
        for run, place, quota in zip(runs, places, quotas, strict=True):
            mask[run[place < quota]] = True
        return mask.reshape(view.tiling.tiles, -1)

    return keep


HOLOV = Policy("holov", prepare, uses_alpha=False, needs=frozenset({"features"}))
