"""DivPrune against a plain loop: every pick is the patch farthest from those kept, over all tiles together."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from hired_edge.packing import stock_gather
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.tiling import TilingRules, tile
from tests.tiny.pictures import view

HALF = Fraction(1, 2)
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 112)))
FOUR = TilingRules("single", 28, 14)


def order(seen: View) -> list[int]:
    """The picks, flat."""
    keep = POLICIES["divprune"].prepare(seen, HALF)
    masks = [keep(tokens).reshape(-1) for tokens in range(seen.tiling.eligible_tokens + 1)]
    found = [np.flatnonzero(after & ~before) for before, after in itertools.pairwise(masks)]
    assert all(len(new) == 1 for new in found)
    return [int(new[0]) for new in found]


def distances(seen: View) -> NDArray[np.float64]:
    """1 - cosine of all patches, padding included, pair by pair."""
    rows = seen.all_features().reshape(seen.tiling.patches, -1).astype(np.float64)
    return np.array([[1 - (a @ b) / ((a @ a) * (b @ b)) ** 0.5 for b in rows] for a in rows])


def test_a_worked_example() -> None:
    """Patches at 0, 10, 90 and 200 degrees: the last has the farthest neighbour, and 10 degrees lies opposite."""
    angles = np.deg2rad([0, 10, 90, 200])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)[None].astype(np.float32)
    maps = np.ones((1, 4), np.float32)
    assert order(View(tile(28, 28, FOUR), maps, maps, lambda: features)) == [3, 1, 2, 0]


@pytest.mark.parametrize(("size", "seed"), [((40, 60), 1), ((90, 112), 2), ((112, 60), 3), ((20, 112), 4)])
def test_each_pick_is_the_farthest_there_is(size: tuple[int, int], seed: int) -> None:
    """In the distance reached, so that a near-tie may fall either way."""
    seen = view(tile(*size, SMALL), seed)
    apart, eligible = distances(seen), np.flatnonzero(seen.tiling.eligible).tolist()
    kept: list[int] = []
    for pick in order(seen):
        left = [j for j in eligible if j not in kept]
        reached = {j: min(apart[j, i] for i in (kept or eligible) if i != j) for j in left}
        assert reached[pick] >= max(reached.values()) - 1e-5
        kept.append(pick)
    assert sorted(kept) == eligible


def test_among_equals_the_earlier_in_the_sequence_goes_first() -> None:
    """All features alike: every pick is a tie."""
    tiling = tile(112, 112, SMALL)
    maps = np.ones((5, 16), np.float32)
    seen = View(tiling, maps, maps, lambda: np.ones((5, 16, 3), np.float32))
    gather = stock_gather(tiling)
    assert order(seen) == gather[gather >= 0].tolist()


def test_attention_plays_no_part() -> None:
    one = view(tile(100, 80, SMALL), 5)
    other = View(one.tiling, one.selection_attention, one.allocation_attention, one.features)
    assert order(one) == order(other)
