from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.budget import Budget
from hired_edge.errors import BundleError, InputError, LimitError
from hired_edge.packing import stock_gather
from hired_edge.policies import POLICIES
from hired_edge.selection import Selection, select
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import attention, noise

NEXT = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SINGLE = TilingRules("single", 56, 14)

SIZES = st.one_of(
    st.tuples(st.integers(1, 400), st.integers(1, 400)), st.sampled_from([(1, 1), (20, 5000), (5000, 20)])
)
SEEDS = st.integers(0, 2**32 - 1)
BUDGETS = st.one_of(st.integers(0, 110), st.just(10**6))
OWN_NUMBER = ("prumerge", "prumerge+")
"""Policies that refuse a budget below what they keep."""
ALPHAS = st.sampled_from([0, 0.1, 0.3, 0.5, 0.9, 1])


def select_one(
    tiling: Tiling,
    seed: int,
    budget: Budget | str | int,
    policy: str = "hired",
    alpha: float = 0.5,
    newlines: str | None = None,
) -> Selection:
    maps = attention(tiling, seed), attention(tiling, seed // 4)
    return select([tiling], [maps[0]], [maps[1]], budget, policy, alpha, newlines, **vectors(tiling, seed))[0]


def vectors(tiling: Tiling, seed: int) -> dict[str, Any]:
    """What some policies look at beside the maps."""
    return {"features": [lambda: noise(tiling, seed + 2)], "keys": [noise(tiling, seed + 3, 8)]}


def check_consistency(selection: Selection) -> None:
    """What holds for every policy: the parts say the same as the splice order, and padding is never in it."""
    tiling, patches = selection.tiling, selection.tiling.rules.patches_per_tile
    tokens = selection.gather[selection.gather >= 0]
    flat = [p * patches + j for p, kept in enumerate(selection.indices) for j in kept.tolist()]
    assert sorted(tokens.tolist()) == flat  # without duplicates, each partition in raster order
    assert tiling.eligible.reshape(-1)[tokens].all()
    assert selection.counts == [len(kept) for kept in selection.indices]
    assert selection.kept == len(tokens)
    assert selection.newlines == np.count_nonzero(selection.gather == -1)
    assert selection.visual_tokens == len(selection.gather) == selection.kept + selection.newlines
    assert selection.unused == selection.budget - selection.visual_tokens >= 0
    assert selection.eligible == tiling.eligible.sum()
    # The order is the stock order with gaps.
    order = {index: place for place, index in enumerate(stock_gather(tiling).tolist()) if index >= 0}
    places = [order[index] for index in tokens.tolist()]
    assert places == sorted(places)
    assert stock_gather(tiling)[selection.places].tolist() == selection.gather.tolist()
    assert (np.diff(selection.places) > 0).all()


def rows_of(selection: Selection) -> int:
    """Mosaic rows with a kept token, counted by hand."""
    side, grid_w = selection.tiling.rules.patches_per_side, selection.tiling.grid[1]
    return len(
        {
            ((p - 1) // grid_w, j // side)
            for p, kept in enumerate(selection.indices)
            if p > 0
            for j in kept.tolist()
        }
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(SIZES, SEEDS, BUDGETS, ALPHAS)
def test_without_newlines_the_budget_is_exact(size: tuple[int, int], seed: int, budget: int, alpha: float) -> None:
    tiling = tile(*size, SMALL)
    selection = select_one(tiling, seed, budget, alpha=alpha, newlines="none")
    check_consistency(selection)
    assert selection.kept == selection.visual_tokens == min(budget, tiling.eligible_tokens)
    assert selection.budget == budget


@settings(max_examples=60, deadline=None)
@given(SIZES, SEEDS, st.integers(0, 110), ALPHAS)
def test_kept_rows_keeps_the_most_that_fits(size: tuple[int, int], seed: int, budget: int, alpha: float) -> None:
    tiling = tile(*size, SMALL)
    selection = select_one(tiling, seed, budget, alpha=alpha)
    check_consistency(selection)
    assert selection.newlines == rows_of(selection)
    assert selection.visual_tokens <= budget
    for tokens in range(selection.kept + 1, min(budget, tiling.eligible_tokens) + 1):
        more = select_one(tiling, seed, tokens, alpha=alpha, newlines="none")
        assert tokens + rows_of(more) > budget


@settings(max_examples=60, deadline=None)
@given(SIZES, SEEDS, st.integers(12, 110), ALPHAS)
def test_all_rows_has_every_newline(size: tuple[int, int], seed: int, budget: int, alpha: float) -> None:
    tiling = tile(*size, SMALL)
    selection = select_one(tiling, seed, budget, alpha=alpha, newlines="all-rows")
    check_consistency(selection)
    assert selection.newlines == tiling.rows
    assert selection.kept == min(budget - tiling.rows, tiling.eligible_tokens)


@settings(max_examples=20, deadline=None)
@given(SIZES, SEEDS, ALPHAS)
def test_the_number_kept_never_falls_as_the_budget_grows(size: tuple[int, int], seed: int, alpha: float) -> None:
    tiling = tile(*size, SMALL)
    kept = [select_one(tiling, seed, budget, alpha=alpha, newlines="none").kept for budget in range(0, 101, 3)]
    assert kept == sorted(kept)


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS, BUDGETS, ALPHAS, st.sampled_from(sorted(POLICIES)))
def test_the_same_maps_give_the_same_tokens(
    size: tuple[int, int], seed: int, budget: int, alpha: float, policy: str
) -> None:
    tiling = tile(*size, SMALL)
    if policy in OWN_NUMBER:
        budget = max(budget, tiling.stock_tokens)
    first, second = (select_one(tiling, seed, budget, policy, alpha) for _ in range(2))
    check_consistency(first)
    assert first.gather.tolist() == second.gather.tolist()
    wide = attention(tiling, seed).astype(np.float64), attention(tiling, seed // 4).astype(np.float64)
    third = select([tiling], [wide[0]], [wide[1]], budget, policy, alpha, **vectors(tiling, seed))[0]
    assert first.gather.tolist() == third.gather.tolist()


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("newlines", [None, "none", "kept-rows", "all-rows"])
@settings(max_examples=10, deadline=None)
@given(size=SIZES, seed=SEEDS)
def test_100_percent_is_the_stock_sequence(policy: str, newlines: str | None, size: tuple[int, int], seed: int) -> None:
    tiling = tile(*size, SMALL)
    selection = select_one(tiling, seed, "100%", policy, newlines=newlines)
    check_consistency(selection)
    assert selection.gather.tolist() == stock_gather(tiling).tolist()
    assert (selection.budget, selection.unused) == (tiling.stock_tokens, 0)


@pytest.mark.parametrize("budget", [0, "20%", 10**6])
def test_full_is_the_stock_sequence_at_any_budget(budget: str | int) -> None:
    tiling = tile(480, 640, NEXT)
    selection = select_one(tiling, 0, budget, "full", newlines="none")
    assert selection.gather.tolist() == stock_gather(tiling).tolist()
    assert selection.budget == selection.visual_tokens == 2340


@pytest.mark.parametrize(
    ("size", "budget", "newlines", "granted", "kept"),
    [
        ((672, 672), "20%", "none", 576, 576),
        ((672, 672), "20%", "all-rows", 576, 528),
        ((672, 672), "33.3%", "none", 959, 959),
        ((672, 672), 2928, "kept-rows", 2928, 2880),
        ((672, 672), 2927, "kept-rows", 2927, 2879),
        ((672, 672), 1, "none", 1, 1),
        ((480, 640), "90%", "none", 2592, 2304),
        ((20, 5000), "40%", "kept-rows", 922, 576),
        ((5000, 20), "40%", "all-rows", 922, 576),
        ((1, 1), "50%", "none", 864, 864),
    ],
)
def test_full_sized_pictures(size: tuple[int, int], budget: str | int, newlines: str, granted: int, kept: int) -> None:
    selection = select_one(tile(*size, NEXT), 0, budget, newlines=newlines)
    check_consistency(selection)
    assert (selection.budget, selection.kept) == (granted, kept)


def test_hired_2024_has_no_newlines_unless_asked() -> None:
    tiling = tile(112, 112, SMALL)
    assert select_one(tiling, 0, 40, "hired-2024").newlines == 0
    asked = select_one(tiling, 0, 40, "hired-2024", newlines="kept-rows")
    check_consistency(asked)
    assert asked.newlines == rows_of(asked) > 0


def test_hired_2024_is_given_the_whole_budget_where_padding_takes_a_part() -> None:
    tiling = tile(56, 112, TilingRules("anyres", 56, 14, ((112, 112),)))
    assert tiling.eligible.sum(axis=1).tolist() == [16, 8, 8, 8, 8]
    # More than the 48 eligible: 60 tokens at alpha 0 are 15 a sub-image, of which padding takes 8.
    selection = select([tiling], [np.ones((5, 16))], [np.where(tiling.eligible, 0.1, 0.9)], 60, "hired-2024", 0)[0]
    assert selection.counts == [0, 7, 7, 7, 7]
    assert selection.unused == 32


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS, BUDGETS, ALPHAS)
def test_hired_2024_stays_within_the_budget(size: tuple[int, int], seed: int, budget: int, alpha: float) -> None:
    tiling = tile(*size, SMALL)
    for newlines in ("none", "kept-rows"):
        check_consistency(select_one(tiling, seed, budget, "hired-2024", alpha, newlines))


@settings(max_examples=40, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=3), SEEDS, st.integers(0, 300), st.sampled_from(["none", "kept-rows"]))
def test_one_budget_for_all_pictures(sizes: list[tuple[int, int]], seed: int, budget: int, newlines: str) -> None:
    tilings = [tile(*size, SMALL) for size in sizes]
    maps = [attention(tiling, seed + i) for i, tiling in enumerate(tilings)]
    selections = select(tilings, maps, maps, budget, newlines=newlines)
    assert sum(selection.budget for selection in selections) == budget
    for i, selection in enumerate(selections):
        check_consistency(selection)
        alone = select([tilings[i]], [maps[i]], [maps[i]], selection.budget, newlines=newlines)[0]
        assert selection.gather.tolist() == alone.gather.tolist()
    if newlines == "none":
        eligible = sum(tiling.eligible_tokens for tiling in tilings)
        assert sum(selection.kept for selection in selections) == min(budget, eligible)


def test_single_family() -> None:
    selection = select_one(tile(100, 30, SINGLE), 0, 5)
    check_consistency(selection)
    assert (selection.kept, selection.newlines, selection.counts) == (5, 0, [5])
    with pytest.raises(InputError, match="for one tile"):
        select_one(tile(100, 30, SINGLE), 0, 5, newlines="kept-rows")


@pytest.mark.parametrize("name", ["allocation", "selection"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("budget", ["20%", "100%"])
def test_broken_attention_is_refused(name: str, value: float, budget: str) -> None:
    tiling = tile(100, 100, SMALL)
    maps = {"allocation": attention(tiling, 0), "selection": attention(tiling, 0)}
    maps[name][0, :3] = value
    with pytest.raises(BundleError, match=rf"{name} attention .* with 3 of \d+ numbers .*hired-edge verify"):
        select([tiling], [maps["allocation"]], [maps["selection"]], budget)


def test_impossible_options_are_refused() -> None:
    tiling = tile(112, 112, SMALL)
    with pytest.raises(InputError, match=f"'best'; expected {', '.join(POLICIES).replace('+', '.')}"):
        select_one(tiling, 0, 10, "best")
    with pytest.raises(InputError, match="alpha"):
        select_one(tiling, 0, 10, alpha=1.5)
    with pytest.raises(InputError, match="budget"):
        select_one(tiling, 0, "101%")
    with pytest.raises(InputError, match="newline policy"):
        select_one(tiling, 0, 10, newlines="every")
    with pytest.raises(LimitError, match="budget of 7 visual tokens for a picture of 8 rows"):
        select_one(tiling, 0, 7, newlines="all-rows")


@pytest.mark.parametrize("budget", [94, 95, 100, 120, 143, 400])
def test_all_rows_charges_every_pictures_rows_before_the_rest_is_shared(budget: int) -> None:
    """72 + 22 rows: feasible from 94 on, whatever the pictures' shares would be."""
    tilings = [tile(1008, 336, NEXT), tile(300, 1000, NEXT)]
    assert [tiling.rows for tiling in tilings] == [72, 22]
    maps = [np.ones((tiling.tiles, 576), np.float32) for tiling in tilings]
    selections = select(tilings, maps, maps, budget, newlines="all-rows")
    assert [selection.newlines for selection in selections] == [72, 22]
    assert sum(selection.visual_tokens for selection in selections) == budget
