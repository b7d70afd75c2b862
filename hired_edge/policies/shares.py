"""Quotas for the policies that choose tile by tile: every partition keeps the same share of its eligible patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from hired_edge.budget import apportion
from hired_edge.policies.policy import Mask
from hired_edge.tiling import Tiling


def quotas(tiling: Tiling, tokens: int) -> list[int]:
    """Tokens of each partition, T, by largest remainders; they sum to min(tokens, eligible)."""
    # No share exceeds its capacity: n c / E is at most c, and is below c wherever it is rounded up.
    return apportion(min(tokens, tiling.eligible_tokens), tiling.eligible.sum(axis=1).tolist())


class Picks:
    """A greedy choice's picks in order, made as far as they are asked for."""

    def __init__(self, picks: Iterator[int]) -> None:
        self._rest, self._made = picks, []

    def first(self, count: int) -> list[int]:
        """The first `count`."""
        self._made += islice(self._rest, max(0, count - len(self._made)))
        return self._made[:count]


def greedy_by_tile(
    tiling: Tiling,
    picks: Callable[[int, NDArray[np.int64]], Iterator[int]],
    counts: Callable[[int], Sequence[int]],
) -> Callable[[int], Mask]:
    """What keeps the first of each partition's picks.

    Args:
        tiling: the picture, cut.
        picks: partition and its eligible patches (n,) -> indices into those, best first, all n of them.
        counts: tokens of each partition for a number of tokens, T.
    """
    patches = [np.flatnonzero(eligible) for eligible in tiling.eligible]
    orders = [Picks(picks(partition, own)) for partition, own in enumerate(patches)]

    def keep(tokens: int) -> Mask:
        mask = np.zeros(tiling.eligible.shape, np.bool_)
        for row, own, order, count in zip(mask, patches, orders, counts(tokens), strict=True):
            row[own[order.first(count)]] = True
        return mask

    return keep
