from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hired_edge.errors import InputError, LimitError
from hired_edge.packing import (
    Packing,
    fit,
    gather_index,
    kept_rows,
    newline_policy,
    stock_gather,
    usable_positions,
)
from hired_edge.tiling import Tiling, TilingRules, tile

SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SINGLE = TilingRules("single", 56, 14)
SIDES = st.integers(1, 400)
SEEDS = st.integers(0, 2**32 - 1)


def some_mask(tiling: Tiling, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    return (rng.random(tiling.eligible.shape) < rng.random()) & tiling.eligible


def slow_rows(tiling: Tiling) -> list[list[tuple[int, int]]]:
    """(partition, patch) of every mosaic cell that survives `unpad`, row by row."""
    side, (_, grid_w) = tiling.rules.patches_per_side, tiling.grid
    row0, row1, column0, column1 = tiling.window
    return [
        [
            (1 + row // side * grid_w + column // side, row % side * side + column % side)
            for column in range(column0, column1)
        ]
        for row in range(row0, row1)
    ]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SEEDS)
def test_splice_order(height: int, width: int, seed: int) -> None:
    tiling = tile(height, width, SMALL)
    mask = some_mask(tiling, seed)
    newline_rows = np.random.default_rng(seed).random(tiling.rows) < 0.5
    expected = [j for j in range(16) if mask[0, j]]
    for row, newline in zip(slow_rows(tiling), newline_rows, strict=True):
        expected += [p * 16 + j for p, j in row if mask[p, j]] + [-1] * int(newline)
    packing = Packing(mask, newline_rows)
    gather = gather_index(tiling, packing)
    assert gather.dtype == np.int64
    assert gather.tolist() == expected
    assert packing.positions == len(expected)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES)
def test_stock_sequence(height: int, width: int) -> None:
    tiling = tile(height, width, SMALL)
    gather = stock_gather(tiling)
    assert len(gather) == tiling.stock_tokens
    assert np.count_nonzero(gather == -1) == tiling.rows
    assert sorted(gather[gather >= 0]) == np.flatnonzero(tiling.eligible).tolist()


def test_rows_run_across_tiles() -> None:
    tiling = tile(56, 112, SMALL)  # one row of two tiles, no padding
    assert tiling.grid == (1, 2)
    first_row = [16, 17, 18, 19, 32, 33, 34, 35, -1]
    assert stock_gather(tiling)[16 : 16 + 9].tolist() == first_row


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, SEEDS)
def test_kept_rows(height: int, width: int, seed: int) -> None:
    tiling = tile(height, width, SMALL)
    mask = some_mask(tiling, seed)
    assert kept_rows(tiling, mask).tolist() == [any(mask[p, j] for p, j in row) for row in slow_rows(tiling)]


def arbitrary(tiling: Tiling, seed: int) -> Callable[[int], NDArray[np.bool_]]:
    """A strict policy whose sets have nothing to do with one another, so that rows jump up and down with the number."""

    def keep(tokens: int) -> NDArray[np.bool_]:
        cells = np.flatnonzero(tiling.eligible)
        mask = np.zeros(tiling.eligible.size, dtype=np.bool_)
        mask[np.random.default_rng([seed, tokens]).permutation(cells)[:tokens]] = True
        return mask.reshape(tiling.eligible.shape)

    return keep


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SEEDS, st.integers(0, 100))
def test_kept_rows_keeps_the_most_tokens_that_fit(height: int, width: int, seed: int, budget: int) -> None:
    tiling = tile(height, width, SMALL)
    keep = arbitrary(tiling, seed)
    fitting = [
        tokens
        for tokens in range(tiling.eligible_tokens + 1)
        if tokens + sum(any(keep(tokens)[p, j] for p, j in row) for row in slow_rows(tiling)) <= budget
    ]
    packing = fit(tiling, keep, budget, "kept-rows", tiling.eligible_tokens)
    assert packing.mask.sum() == max(fitting)
    assert (packing.newline_rows == kept_rows(tiling, packing.mask)).all()


def nested(tiling: Tiling, seed: int) -> Callable[[int], NDArray[np.bool_]]:
    """A policy under which more tokens never drop one."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(tiling.eligible))

    def keep(tokens: int) -> NDArray[np.bool_]:
        mask = np.zeros(tiling.eligible.size, dtype=np.bool_)
        mask[order[:tokens]] = True
        return mask.reshape(tiling.eligible.shape)

    return keep


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SEEDS, st.integers(0, 100))
def test_halving_loses_nothing_where_more_tokens_never_drop_one(
    height: int, width: int, seed: int, budget: int
) -> None:
    tiling = tile(height, width, SMALL)
    keep, asked = nested(tiling, seed), []

    def counted(tokens: int) -> NDArray[np.bool_]:
        asked.append(tokens)
        return keep(tokens)

    halved = fit(tiling, counted, budget, "kept-rows", tiling.eligible_tokens, every=False)
    assert len(asked) <= 6, "of up to twelve rows: four halves, the first and the last"
    whole = fit(tiling, keep, budget, "kept-rows", tiling.eligible_tokens)
    assert (halved.mask == whole.mask).all()
    assert (halved.newline_rows == whole.newline_rows).all()


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SEEDS, st.integers(0, 100))
def test_halving_never_exceeds_the_budget(height: int, width: int, seed: int, budget: int) -> None:
    """Every number of tokens another draw; what leaves room for every row is kept at least."""
    tiling = tile(height, width, SMALL)
    packing = fit(tiling, arbitrary(tiling, seed), budget, "kept-rows", tiling.eligible_tokens, every=False)
    assert packing.positions <= budget
    assert (packing.newline_rows == kept_rows(tiling, packing.mask)).all()
    assert packing.mask.sum() >= min(tiling.eligible_tokens, budget - tiling.rows)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SEEDS, st.integers(0, 100))
def test_all_rows_charges_the_rows_first(height: int, width: int, seed: int, budget: int) -> None:
    tiling = tile(height, width, SMALL)
    if budget < tiling.rows:
        with pytest.raises(LimitError, match=rf"budget of {budget} .* {tiling.rows} rows"):
            fit(tiling, arbitrary(tiling, seed), budget, "all-rows", tiling.eligible_tokens)
        return
    packing = fit(tiling, arbitrary(tiling, seed), budget, "all-rows", tiling.eligible_tokens)
    assert packing.newline_rows.all()
    assert packing.mask.sum() == min(budget - tiling.rows, tiling.eligible_tokens)


def test_empty_rows_get_newlines_only_where_all_rows_do() -> None:
    tiling = tile(200, 4, SMALL)  # every column is padding
    assert (tiling.rows, tiling.columns) == (12, 0)
    keep = arbitrary(tiling, 0)
    assert fit(tiling, keep, 20, "kept-rows", 16).positions == 16
    assert fit(tiling, keep, 20, "all-rows", 16).positions == 20
    assert stock_gather(tiling).tolist() == [*range(16), *[-1] * 12]
    assert [usable_positions(tiling, name, 16) for name in ("none", "kept-rows", "all-rows")] == [16, 16, 28]


@pytest.mark.parametrize(
    ("rules", "asked", "default", "in_force"),
    [
        (SMALL, None, None, "kept-rows"),
        (SMALL, None, "none", "none"),
        (SMALL, "all-rows", "none", "all-rows"),
        (SMALL, "none", None, "none"),
        (SINGLE, None, None, "none"),
        (SINGLE, None, "kept-rows", "none"),
        (SINGLE, "none", None, "none"),
    ],
)
def test_newline_policy_in_force(rules: TilingRules, asked: str | None, default: str | None, in_force: str) -> None:
    assert newline_policy(tile(10, 10, rules), asked, default) == in_force


@pytest.mark.parametrize(
    ("rules", "asked"), [(SMALL, "some-rows"), (SMALL, ""), (SINGLE, "kept-rows"), (SINGLE, "all-rows")]
)
def test_newline_policy_that_cannot_be_is_refused(rules: TilingRules, asked: str) -> None:
    with pytest.raises(InputError, match=f"newline policy '{asked}'"):
        newline_policy(tile(10, 10, rules), asked)
