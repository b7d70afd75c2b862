"""SCOPE against a plain loop: every pick has the largest coverage gain times attention, tile by tile."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import view

HALF = Fraction(1, 2)
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 112), (168, 56)))
SINGLE = TilingRules("single", 56, 14)
FOUR = TilingRules("single", 28, 14)


def cosine(a: NDArray, b: NDArray) -> float:
    return float(a @ b) / (float(a @ a) * float(b @ b)) ** 0.5


def slow_values(rows: NDArray, attention: NDArray, kept: list[int]) -> list[float]:
    """What each patch would be worth next: the sum over i of max(0, S_ij - c_i), times a_j."""
    rows, patches = rows.astype(np.float64), range(len(rows))
    covered = [max([0.0, *(cosine(rows[i], rows[j]) for j in kept)]) for i in patches]
    return [
        sum(max(0.0, cosine(rows[i], rows[j]) - covered[i]) for i in patches) * float(attention[j]) for j in patches
    ]


def of_tile(seen: View, p: int) -> tuple[NDArray, NDArray, NDArray]:
    """Eligible patches of tile p, their features and attention."""
    own = np.flatnonzero(seen.tiling.eligible[p])
    return own, seen.all_features()[p, own], seen.selection_attention[p, own]


def order(seen: View) -> list[int]:
    """The picks of a picture of one tile."""
    keep = POLICIES["scope"].prepare(seen, HALF)
    masks = [keep(tokens)[0] for tokens in range(seen.tiling.patches + 1)]
    found = [np.flatnonzero(after & ~before) for before, after in itertools.pairwise(masks)]
    assert all(len(new) == 1 for new in found)
    return [int(new[0]) for new in found]


def one_tile(features: list[list[float]], attention: list[float]) -> View:
    tiling = tile(28, 28, FOUR)
    maps = np.array([attention], np.float32)
    return View(tiling, np.ones_like(maps), maps, lambda: np.array([features], np.float32))


def test_a_worked_example() -> None:
    """Two directions, two patches each: all cover 2. 2 * 3 is most; then the other two tie; then nothing is gained."""
    seen = one_tile([[1, 0], [5, 0], [0, 2], [0, 1]], [1, 3, 2, 2])
    assert order(seen) == [1, 2, 0, 3]


def test_attention_outweighs_coverage_where_it_is_large() -> None:
    """The third patch is alone in its direction; it goes first only if twice as much is attended to."""
    features = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    assert order(one_tile(features, [2, 1, 3.9, 0.1]))[0] == 0
    assert order(one_tile(features, [2, 1, 4.1, 0.1]))[0] == 2


@pytest.mark.parametrize("seed", range(4))
def test_each_pick_is_the_best_there_is(seed: int) -> None:
    """In the value reached, so that a near-tie may fall either way."""
    seen = view(tile(56, 56, SINGLE), 7 * seed)
    _, rows, attention = of_tile(seen, 0)
    kept: list[int] = []
    for pick in order(seen):
        values = slow_values(rows, attention, kept)
        best = max(value for patch, value in enumerate(values) if patch not in kept)
        assert values[pick] >= best - 1e-4 * max(1, best)
        kept.append(pick)


def alone(tiling: Tiling, seen: View, p: int, count: int) -> set[int]:
    """The first picks of tile p by the slow loop."""
    own, rows, attention = of_tile(seen, p)
    kept: list[int] = []
    for _ in range(count):
        values = slow_values(rows, attention, kept)
        kept.append(max((j for j in range(len(own)) if j not in kept), key=values.__getitem__))
    return set(own[kept].tolist())


@pytest.mark.parametrize(("size", "tokens"), [((100, 60), 30), ((60, 112), 17), ((150, 40), 9), ((112, 112), 44)])
def test_every_tile_is_chosen_from_on_its_own(size: tuple[int, int], tokens: int) -> None:
    tiling = tile(*size, SMALL)
    seen = view(tiling, tokens)
    mask = POLICIES["scope"].prepare(seen, HALF)(tokens)
    fair = tokens * tiling.eligible.sum(axis=1) / tiling.eligible_tokens
    assert (abs(mask.sum(axis=1) - fair) < 1).all()
    for p, kept in enumerate(mask):
        assert set(np.flatnonzero(kept).tolist()) == alone(tiling, seen, p, int(kept.sum()))
