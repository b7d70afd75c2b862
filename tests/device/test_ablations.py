"""HiRED with one choice replaced: each is HiRED on a picture whose maps say what the ablation reads."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hired_edge.budget import allocate
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.tiling import TilingRules, tile
from tests.tiny.pictures import attention, view

SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SIDES, SEEDS, TOKENS = st.integers(1, 400), st.integers(0, 10**6), st.integers(0, 100)
ALPHAS = st.fractions(0, 1, max_denominator=10)


def kept(policy: str, seen: View, tokens: int, alpha: Fraction) -> NDArray[np.bool_]:
    return POLICIES[policy].prepare(seen, alpha)(tokens)


def picture(height: int, width: int, seed: int) -> View:
    tiling = tile(height, width, SMALL)
    maps = attention(tiling, seed), attention(tiling, seed // 4)
    return replace(view(tiling, seed), allocation_attention=maps[0], selection_attention=maps[1])


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SEEDS, TOKENS, ALPHAS)
def test_allocated_by_the_last_layer(height: int, width: int, seed: int, tokens: int, alpha: Fraction) -> None:
    seen = picture(height, width, seed)
    last = replace(seen, allocation_attention=seen.selection_attention)
    found = kept("hired-allocated-by-last", seen, tokens, alpha)
    assert (found == kept("hired", last, tokens, alpha)).all()


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SEEDS, TOKENS, ALPHAS)
def test_dropped_by_the_first_layer(height: int, width: int, seed: int, tokens: int, alpha: Fraction) -> None:
    """Its sub-images get what HiRED gives them."""
    seen = picture(height, width, seed)
    first = replace(seen, selection_attention=seen.allocation_attention)
    found = kept("hired-dropped-by-first", seen, tokens, alpha)
    assert (found == kept("hired", first, tokens, alpha)).all()
    assert found.sum(axis=1).tolist() == kept("hired", seen, tokens, alpha).sum(axis=1).tolist()


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SEEDS, TOKENS, ALPHAS)
def test_distributed_evenly(height: int, width: int, seed: int, tokens: int, alpha: Fraction) -> None:
    """Sub-images of equal weight, but for those of padding alone; of each the best are kept."""
    seen = picture(height, width, seed)
    found, eligible = kept("hired-even", seen, tokens, alpha), seen.tiling.eligible
    counts, most = found.sum(axis=1).tolist(), eligible.sum(axis=1).tolist()
    assert counts == allocate(tokens, [min(1, capacity) for capacity in most[1:]], most, alpha)
    if max(counts[1:], default=0) < min([each for each in most[1:] if each], default=0) and counts[0] < most[0]:
        shares = [count for count, capacity in zip(counts[1:], most[1:], strict=True) if capacity]
        assert max(shares) - min(shares) <= 1, "nothing overflowed"
    for own, can, scores in zip(found, eligible, seen.selection_attention, strict=True):
        if own.any() and (can & ~own).any():
            assert scores[own].min() >= scores[can & ~own].max()


def test_a_worked_example() -> None:
    """A 2 x 2 grid, 20 tokens, half of them base. First layer: quadrants of 10, 6, 4, 0; last: all in the fourth."""
    tiling = tile(112, 112, SMALL)
    first = np.zeros((5, 16), np.float32)
    first[0] = [4, 3, 2, 1, 2, 1, 2, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    last = np.tile(np.arange(16, dtype=np.float32), (5, 1))
    last[0] = [0] * 10 + [5, 5, 0, 0, 5, 5]
    seen = View(tiling, first, last)
    half = Fraction(1, 2)
    names = ("hired", "hired-even", "hired-allocated-by-last", "hired-dropped-by-first")
    counts = {name: kept(name, seen, 20, half).sum(axis=1).tolist() for name in names}
    assert counts["hired"] == [10, 5, 3, 2, 0]
    assert counts["hired-even"] == [10, 3, 3, 2, 2]
    assert counts["hired-allocated-by-last"] == [10, 0, 0, 0, 10]
    assert counts["hired-dropped-by-first"] == counts["hired"]
    assert np.flatnonzero(kept("hired-dropped-by-first", seen, 20, half)[1]).tolist() == [0, 1, 2, 3, 4]
