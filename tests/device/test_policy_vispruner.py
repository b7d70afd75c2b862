"""VisPruner against a plain loop: half by attention, half by dropping, round after round, what is most alike."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.tiling import TilingRules, tile
from tests.tiny.pictures import view

HALF = Fraction(1, 2)
SMALL = TilingRules("anyres", 112, 14, ((112, 224), (224, 224)))
SINGLE = TilingRules("single", 112, 14)
FOUR = TilingRules("single", 28, 14)


def slow(seen: View, p: int, count: int) -> set[int]:
    """The kept patches of tile p, rule by rule."""
    rows, attention = seen.all_features()[p].astype(np.float64), seen.selection_attention[p].tolist()
    eligible = np.flatnonzero(seen.tiling.eligible[p]).tolist()
    by_attention = sorted(eligible, key=lambda j: (-attention[j], j))
    important, rest = by_attention[: count // 2], by_attention[count // 2 :]
    wanted = count - count // 2
    while len(rest) > wanted:
        compared, between = rest[0::2], rest[1::2]
        if not between:
            break
        likeness = {
            j: max(
                float(rows[j] @ rows[i]) / (float(rows[j] @ rows[j]) * float(rows[i] @ rows[i])) ** 0.5 for i in between
            )
            for j in compared
        }
        most_alike = sorted(compared, key=lambda j: -likeness[j])
        rest = most_alike[min(8, len(rest) - wanted, len(compared)) :] + between
    return {*important, *rest[:wanted]}


@pytest.mark.parametrize("tokens", [0, 1, 2, 5, 16, 31, 50, 63, 64])
def test_one_tile_as_the_slow_loop(tokens: int) -> None:
    seen = view(tile(112, 112, SINGLE), tokens)
    mask = POLICIES["vispruner"].prepare(seen, HALF)(tokens)
    assert set(np.flatnonzero(mask).tolist()) == slow(seen, 0, tokens)


@pytest.mark.parametrize(("size", "tokens"), [((150, 224), 40), ((224, 90), 100), ((60, 200), 13), ((224, 224), 250)])
def test_every_tile_as_the_slow_loop(size: tuple[int, int], tokens: int) -> None:
    tiling = tile(*size, SMALL)
    seen = view(tiling, tokens)
    mask = POLICIES["vispruner"].prepare(seen, HALF)(tokens)
    fair = min(tokens, tiling.eligible_tokens) * tiling.eligible.sum(axis=1) / tiling.eligible_tokens
    assert (abs(mask.sum(axis=1) - fair) < 1).all()
    for p, kept in enumerate(mask):
        assert set(np.flatnonzero(kept).tolist()) == slow(seen, p, int(kept.sum()))


@pytest.mark.parametrize(("tokens", "kept"), [(1, {3}), (2, {0, 2}), (3, {0, 2, 3}), (4, {0, 1, 2, 3})])
def test_a_worked_example(tokens: int, kept: set[int]) -> None:
    """Attention 4, 3, 2, 1; patches 1 and 2 are alike, 0 and 3 are unlike all.

    One token: none is important; 0 and 2 are compared with 1 and 3, and both go; so does then 1, compared with 3. Two:
    0 is important; 1 and 3 are compared with 2, and both go. Three: one of them goes, 1, which is 2's like.
    """
    features = np.array([[[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]], np.float32)
    maps = np.array([[4, 3, 2, 1]], np.float32)
    seen = View(tile(28, 28, FOUR), maps, maps, lambda: features)
    found = POLICIES["vispruner"].prepare(seen, HALF)(tokens)
    assert set(np.flatnonzero(found).tolist()) == slow(seen, 0, tokens) == kept
