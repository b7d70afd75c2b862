from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hired_edge.errors import LimitError
from hired_edge.policies import POLICIES
from hired_edge.policies.hired import sub_image_scores
from hired_edge.policies.hired_2024 import stripe_counts
from hired_edge.policies.policy import View, ranks
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import attention, view

# 16 patches a tile, all the shapes that LLaVA-NeXT's grids have.
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SINGLE = TilingRules("single", 56, 14)
HALF = Fraction(1, 2)
SIDES = st.integers(1, 400)
SEEDS = st.integers(0, 2**32 - 1)
ALPHAS = st.fractions(0, 1, max_denominator=10)
OWN_NUMBER = ("prumerge", "prumerge+")
"""Policies that refuse fewer tokens than they keep."""

# Quadrants sum to 10, 6, 4, 0. Each row of four is one stripe of hired-2024.
BASE = np.array([[4, 3, 2, 1], [2, 1, 2, 1], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=np.float32)


def worked_example() -> tuple[Tiling, NDArray, NDArray]:
    """A 2 x 2 grid without padding; patch j of every partition has selection rank 15 - j."""
    tiling = tile(112, 112, SMALL)
    allocation = np.zeros((5, 16), dtype=np.float32)
    allocation[0] = BASE.reshape(-1)
    allocation[1:] = 99  # only the base picture's map may count
    return tiling, allocation, np.tile(np.arange(16, dtype=np.float32), (5, 1))


def counts(policy: str, tokens: int, alpha: Fraction = HALF) -> list[int]:
    return POLICIES[policy].prepare(View(*worked_example()), alpha)(tokens).sum(axis=1).tolist()


def test_worked_example_scores() -> None:
    tiling, allocation, _ = worked_example()
    assert sub_image_scores(tiling, allocation) == [10.0, 6.0, 4.0, 0.0]
    # The top 8 of 16: 4, 3, 2, 2, 2, then the first three ones in raster order: row 0, row 1, row 1.
    assert stripe_counts(tiling, allocation, HALF) == [4, 4, 0, 0]


def test_sub_images_of_padding_alone_score_nothing() -> None:
    tiling = tile(4, 200, SMALL)  # the window has no row
    assert (tiling.tiles, tiling.eligible_tokens) == (4, 16)
    assert sub_image_scores(tiling, np.ones((4, 16))) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("tokens", "hired", "hired_2024"),
    [
        (20, [10, 5, 3, 2, 0], [10, 5, 5, 0, 0]),
        (21, [10, 6, 3, 2, 0], [10, 5, 5, 0, 0]),  # 11 for two stripes: 5.5 each, the remainder is lost
        (60, [16, 16, 16, 12, 0], [16, 16, 16, 0, 0]),  # 44 for two stripes: 22 each, what is over 16 is lost
        (80, [16, 16, 16, 16, 16], [16, 16, 16, 0, 0]),
        (0, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    ],
)
def test_worked_example_counts(tokens: int, hired: list[int], hired_2024: list[int]) -> None:
    assert counts("hired", tokens) == hired
    assert counts("hired-2024", tokens) == hired_2024


def test_worked_example_at_other_alphas() -> None:
    assert counts("hired", 10, Fraction(0)) == [0, 5, 3, 2, 0]
    assert counts("hired", 10, Fraction(1)) == [10, 0, 0, 0, 0]
    assert counts("hired", 20, Fraction(1)) == [16, 2, 1, 1, 0]
    # All 16 tokens are "top": four in each stripe.
    assert counts("hired-2024", 12, Fraction(0)) == [0, 3, 3, 3, 3]
    # No token is: the sub-images get nothing, not even the base picture's surplus.
    assert counts("hired-2024", 20, Fraction(1)) == [16, 0, 0, 0, 0]
    # A tenth: int(16 * 0.9) = 14 top tokens, 4 + 4 + 4 + 2; 72 of 80 tokens, of which 64 can be had: 18, 18, 18, 9.
    assert counts("hired-2024", 80, Fraction(1, 10)) == [8, 16, 16, 16, 9]


def test_the_highest_attention_stays() -> None:
    mask = POLICIES["hired"].prepare(View(*worked_example()), HALF)(20)
    assert np.flatnonzero(mask[1]).tolist() == [11, 12, 13, 14, 15]
    assert np.flatnonzero(mask[3]).tolist() == [14, 15]


def test_padding_competes_only_in_2024() -> None:
    tiling = tile(56, 112, TilingRules("anyres", 56, 14, ((112, 112),)))
    assert tiling.window == (2, 6, 0, 8)
    selection = np.where(tiling.eligible, 0.1, 0.9)
    allocation = np.ones((5, 16))
    # Half of every sub-image is padding, and it attracts the attention. 40 tokens: 16 + 4 * 6.
    assert POLICIES["hired"].prepare(View(tiling, allocation, selection), Fraction(2, 5))(40).sum(axis=1).tolist() == [
        16, 6, 6, 6, 6,
    ]  # fmt: skip
    # Top int(16 * 0.6) = 9 tokens, all tied: 4, 4, 1, 0. 24 tokens: 10.67, 10.67, 2.67, 0; 8 of each fall on padding.
    mask = POLICIES["hired-2024"].prepare(View(tiling, allocation, selection), Fraction(2, 5))(40)
    assert mask.sum(axis=1).tolist() == [16, 2, 2, 0, 0]


def test_single_partition_keeps_the_top_tokens_at_any_alpha() -> None:
    tiling = tile(30, 40, SINGLE)
    selection = np.array([[3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]], dtype=np.float32)
    for name in ("hired", "hired-2024"):
        for alpha in (Fraction(0), HALF, Fraction(1)):
            mask = POLICIES[name].prepare(View(tiling, selection, selection), alpha)(3)
            assert np.flatnonzero(mask[0]).tolist() == [0, 3, 15]


def test_full_keeps_what_is_eligible() -> None:
    tiling = tile(30, 100, SMALL)
    maps = attention(tiling, 0)
    assert (POLICIES["full"].prepare(View(tiling, maps, maps), HALF)(1) == tiling.eligible).all()


def test_ranks_break_ties_by_raster_order() -> None:
    assert ranks(np.array([[1.0, 3.0, 1.0, 3.0], [0.0, -0.0, 0.0, -0.0]])).tolist() == [[2, 0, 3, 1], [0, 1, 2, 3]]


def slow_hired(tiling: Tiling, allocation: NDArray, selection: NDArray, tokens: int, alpha: Fraction) -> list[int]:
    """The paper's two phases patch by patch, in fractions, for budgets that fill no partition; kept flat indices."""
    patches = tiling.rules.patches_per_tile
    scores = [
        sum(Fraction(float(tiling.coverage[i, j])) * Fraction(float(allocation[0, j])) for j in range(patches))
        for i in range(tiling.tiles - 1)
    ]
    eligible = [[j for j in range(patches) if tiling.eligible[p, j]] for p in range(tiling.tiles)]
    scores = [score if cells else Fraction(0) for score, cells in zip(scores, eligible[1:], strict=True)]
    base = int(alpha * tokens)
    quotas = [(tokens - base) * score / sum(scores) for score in scores]
    shares = [int(quota) for quota in quotas]
    while sum(shares) < tokens - base:
        shares[max(range(len(shares)), key=lambda i: (quotas[i] - shares[i], -i))] += 1
    kept = []
    for p, count in enumerate([base, *shares]):
        assert count <= len(eligible[p])
        best = sorted(eligible[p], key=lambda j: (-float(selection[p, j]), j))[:count]
        kept += [p * patches + j for j in sorted(best)]
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 400), st.integers(40, 400), SEEDS, ALPHAS, st.integers(0, 8))
def test_hired_equals_the_slow_loop(height: int, width: int, seed: int, alpha: Fraction, tokens: int) -> None:
    tiling = tile(height, width, SMALL)
    rng = np.random.default_rng(seed)
    allocation = rng.integers(1, 2**20, (tiling.tiles, 16)).astype(np.float32)
    selection = attention(tiling, seed)
    # A budget no larger than the smallest partition cannot overflow; `allocate` has its own test for the rest.
    tokens = min(tokens, *tiling.eligible.sum(axis=1).tolist())
    mask = POLICIES["hired"].prepare(View(tiling, allocation, selection), alpha)(tokens)
    assert np.flatnonzero(mask).tolist() == slow_hired(tiling, allocation, selection, tokens, alpha)


@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, seed=SEEDS, alpha=ALPHAS, tokens=st.integers(0, 100))
def test_every_policy_keeps_its_promise(
    name: str, height: int, width: int, seed: int, alpha: Fraction, tokens: int
) -> None:
    tiling, policy = tile(height, width, SMALL), POLICIES[name]
    maps = attention(tiling, seed), attention(tiling, seed // 4)
    seen = replace(view(tiling, seed), allocation_attention=maps[0], selection_attention=maps[1])
    keep = policy.prepare(seen, alpha)
    if name in OWN_NUMBER and tokens < (count := int(keep(tiling.patches).sum())):
        with pytest.raises(LimitError, match=f"keeps {count} tokens of this picture; expected a budget with room"):
            keep(tokens)
        return
    mask = keep(tokens)
    assert mask.shape == (tiling.tiles, 16)
    assert mask.dtype == np.bool_
    assert not (mask & ~tiling.eligible).any()
    assert (mask == policy.prepare(seen, alpha)(tokens)).all()
    if policy.strict:
        assert mask.sum() == min(tokens, tiling.eligible_tokens)
    elif not policy.stock:
        assert mask.sum() <= tokens


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, SEEDS, ALPHAS)
def test_a_constant_map_keeps_the_first_patches(height: int, width: int, seed: int, alpha: Fraction) -> None:
    tiling = tile(height, width, SMALL)
    constant = np.full((tiling.tiles, 16), 0.125, dtype=np.float32)
    mask = POLICIES["hired"].prepare(View(tiling, attention(tiling, seed), constant), alpha)(30)
    for kept, eligible in zip(mask, tiling.eligible, strict=True):
        assert np.flatnonzero(kept).tolist() == np.flatnonzero(eligible)[: kept.sum()].tolist()


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES)
def test_symmetric_attention_ties_exactly(height: int, width: int) -> None:
    tiling = tile(height, width, TilingRules("anyres", 56, 14, ((112, 112),)))
    maps = np.full((5, 16), 0.1, dtype=np.float32)
    assert len(set(sub_image_scores(tiling, maps))) <= 2  # equal, or 0 where padding is all there is
