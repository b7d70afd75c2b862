"""Pictures that the vision tower has seen, and where their features are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from hired_edge.budget import Budget
from hired_edge.selection import Selection, select
from hired_edge.tiling import Tiling
from hired_runtime.backend import AttentionMaps, Floats, Ints

Gather = Callable[[Ints], Floats]
"""Rows of a picture's flattened features (T * N, D), by their indices, -1 for any row: (len(rows), D), a copy."""


class Seen(NamedTuple):
    """The pictures of a request after the vision tower.

    Args:
        tilings: one a picture; it has T tiles of N patches.
        maps: one a picture, (T, N) float32 each.
        gather: one a picture: rows of its features, which wait in the engine.
    """

    tilings: list[Tiling]
    maps: list[AttentionMaps]
    gather: list[Gather]

    def select(
        self, budget: Budget, policy: str, alpha: float | str, newlines: str | None, partitions: str = "all"
    ) -> list[Selection]:
        """Allocate and select: see `hired_edge.selection.select`."""
        allocation, selection = [each.allocation for each in self.maps], [each.selection for each in self.maps]
        return select(
            self.tilings,
            allocation,
            selection,
            budget,
            policy,
            alpha,
            newlines,
            partitions,
            features=[partial(all_features, *pair) for pair in zip(self.tilings, self.gather, strict=True)],
            keys=[each.keys for each in self.maps],
        )


def all_features(tiling: Tiling, gather: Gather) -> Floats:
    """All of a picture's features, (T, N, D), a copy."""
    return gather(np.arange(tiling.patches)).reshape(tiling.tiles, tiling.rules.patches_per_tile, -1)
