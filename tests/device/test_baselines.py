"""The baselines that HiRED is held against: random, uniform, top-cls. Every policy's promises are tested elsewhere."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hired_edge.packing import stock_gather
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import attention

SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SINGLE = TilingRules("single", 56, 14)
SIDES = st.integers(1, 400)
SEEDS = st.integers(0, 2**32 - 1)
HALF = Fraction(1, 2)


def kept(policy: str, tiling: Tiling, selection: NDArray, tokens: int) -> list[int]:
    """Flat indices in the order of the sequence."""
    mask = POLICIES[policy].prepare(View(tiling, np.ones_like(selection), selection), HALF)(tokens).reshape(-1)
    order = stock_gather(tiling)
    return [index for index in order[order >= 0].tolist() if mask[index]]


@pytest.mark.parametrize("name", ["full", "random", "uniform", "top-cls"])
@settings(max_examples=20, deadline=None)
@given(height=SIDES, width=SIDES, seed=SEEDS, tokens=st.integers(0, 100))
def test_no_baseline_looks_at_the_allocation(name: str, height: int, width: int, seed: int, tokens: int) -> None:
    tiling, policy = tile(height, width, SMALL), POLICIES[name]
    assert not policy.uses_alpha
    selection = attention(tiling, seed)
    one = policy.prepare(View(tiling, attention(tiling, seed + 4), selection), Fraction(0))(tokens)
    other = policy.prepare(View(tiling, attention(tiling, seed + 1), selection), Fraction(1))(tokens)
    assert (one == other).all()


def test_hired_uses_alpha() -> None:
    """And the ablations and experiments, which are hired but for one choice."""
    assert {name for name, policy in POLICIES.items() if policy.uses_alpha} == {
        *("hired", "hired-2024"),
        *("hired-even", "hired-allocated-by-last", "hired-dropped-by-first"),
        *("hired-placed", "hired-covering", "hired-merging"),
    }


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, SEEDS, st.integers(0, 100), st.integers(0, 100))
def test_random_draws_are_nested(height: int, width: int, seed: int, one: int, other: int) -> None:
    tiling = tile(height, width, SMALL)
    selection = attention(tiling, seed)
    small, large = (set(kept("random", tiling, selection, tokens)) for tokens in sorted((one, other)))
    assert small <= large


def test_random_draws_differ_between_pictures_and_are_the_same_everywhere() -> None:
    tiling = tile(112, 112, SMALL)
    draws = {tuple(kept("random", tiling, attention(tiling, 4 * seed), 10)) for seed in range(50)}
    assert len(draws) == 50
    # Contiguous or not, wide or not: the same maps.
    selection = attention(tiling, 0)
    draw = kept("random", tiling, selection, 10)
    assert kept("random", tiling, np.asfortranarray(selection.astype(">f8")), 10) == draw


def test_random_is_uniform_over_the_eligible_patches() -> None:
    tiling = tile(56, 112, TilingRules("anyres", 56, 14, ((112, 112),)))
    assert tiling.eligible_tokens == 48  # of 80: the rest is padding
    trials, tokens = 3000, 12
    counts = np.zeros(tiling.patches)
    pairs = 0
    for seed in range(trials):
        draw = kept("random", tiling, np.random.default_rng(seed).random((5, 16), np.float32), tokens)
        counts[draw] += 1
        pairs += {0, 1} <= set(draw)
    counts = counts[tiling.eligible.reshape(-1)]
    # Pearson's statistic of 47 degrees of freedom, less than multinomial for draws without replacement.
    expected = trials * tokens / 48
    assert ((counts - expected) ** 2 / expected).sum() < 85
    # Two given patches together: 12 * 11 of 48 * 47.
    share = 12 * 11 / (48 * 47)
    assert abs(pairs - trials * share) < 4 * (trials * share) ** 0.5


@pytest.mark.parametrize(("tokens", "places"), [(1, [8]), (2, [4, 12]), (3, [2, 8, 13]), (16, list(range(16)))])
def test_uniform_takes_the_middle_of_equal_runs(tokens: int, places: list[int]) -> None:
    tiling = tile(30, 40, SINGLE)
    assert kept("uniform", tiling, np.zeros((1, 16), np.float32), tokens) == places


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(1, 100))
def test_uniform_distances_differ_by_one_at_most(height: int, width: int, tokens: int) -> None:
    tiling = tile(height, width, SMALL)
    order = stock_gather(tiling)
    places = {index: place for place, index in enumerate(order[order >= 0].tolist())}
    chosen = [places[index] for index in kept("uniform", tiling, attention(tiling, 0), tokens)]
    assert len(chosen) == min(tokens, tiling.eligible_tokens)
    gaps = np.diff(chosen)
    if len(gaps):
        assert gaps.max() - gaps.min() <= 1
    # As far from the beginning as from the end.
    assert abs(chosen[0] - (tiling.eligible_tokens - 1 - chosen[-1])) <= 1


def test_top_cls_shares_by_eligible_patches_and_keeps_the_best() -> None:
    tiling = tile(56, 112, TilingRules("anyres", 56, 14, ((112, 112),)))
    selection = np.tile(np.arange(16, dtype=np.float32), (5, 1))
    mask = POLICIES["top-cls"].prepare(View(tiling, selection, selection), HALF)(25)
    # Of 16 + 4 * 8 patches: 8.33 and 4.17 each; the spare token to the largest remainder.
    assert mask.sum(axis=1).tolist() == [9, 4, 4, 4, 4]
    assert np.flatnonzero(mask[0]).tolist() == list(range(7, 16))
    # Tiles 1 and 2 hold picture in their lower half, 3 and 4 in their upper.
    assert [np.flatnonzero(row).tolist() for row in mask[1:]] == [[12, 13, 14, 15]] * 2 + [[4, 5, 6, 7]] * 2


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SEEDS, st.integers(0, 100))
def test_top_cls_shares_are_equal(height: int, width: int, seed: int, tokens: int) -> None:
    tiling = tile(height, width, SMALL)
    selection = attention(tiling, seed)
    mask = POLICIES["top-cls"].prepare(View(tiling, selection, selection), HALF)(tokens)
    capacities = tiling.eligible.sum(axis=1)
    quotas = min(tokens, tiling.eligible_tokens) * capacities / tiling.eligible_tokens
    assert (abs(mask.sum(axis=1) - quotas) < 1).all()
    for chosen, eligible, scores in zip(mask, tiling.eligible, selection, strict=True):
        if chosen.any() and (eligible & ~chosen).any():
            assert scores[chosen].min() >= scores[eligible & ~chosen].max()
