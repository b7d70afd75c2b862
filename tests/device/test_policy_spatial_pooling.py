"""Spatial pooling: the largest grid that the budget allows, averages of all patches that a cell touches, one row each.

Against torch in tests/host/test_pooling_parity.py.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.merging import merge_rows
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.selection import Selection, select
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import noise, view

HALF = Fraction(1, 2)
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SINGLE = TilingRules("single", 56, 14)
SIDES = st.integers(1, 400)
POLICY = POLICIES["spatial-pooling"]


def grids(tiling: Tiling, side: int) -> list[tuple[int, int]]:
    """Cells of the pooled base picture and mosaic: both are shrunk by side / 4, and a mosaic has rows and columns."""
    rows, columns = tiling.rows * side // 4, tiling.columns * side // 4
    return [(side, side), (rows, columns) if rows and columns else (0, 0)]


def touched(length: int, cells: int, cell: int) -> range:
    """Patches that a cell touches: from the one that its edge falls in to the one before its other edge."""
    edges = Fraction(cell * length, cells), Fraction((cell + 1) * length, cells)
    return range(int(edges[0]), -(-edges[1].numerator // edges[1].denominator))


def chosen(tiling: Tiling, budget: int, newlines: str) -> Selection:
    maps = [np.ones((tiling.tiles, 16), np.float32)]
    return select([tiling], maps, maps, budget, "spatial-pooling", newlines=newlines)[0]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 110))
def test_the_largest_grid_that_the_budget_allows(height: int, width: int, tokens: int) -> None:
    tiling = tile(height, width, SMALL)
    sizes = [sum(rows * columns for rows, columns in grids(tiling, side)) for side in range(5)]
    mask = POLICY.prepare(view(tiling, 0), HALF)(tokens)
    assert mask.sum() == max(size for size in sizes if size <= tokens)
    assert not (mask & ~tiling.eligible).any()


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 110), st.integers(0, 10**6))
def test_every_token_is_the_average_of_its_cell(height: int, width: int, tokens: int, seed: int) -> None:
    tiling = tile(height, width, SMALL)
    selection = chosen(tiling, tokens, "none")
    features = noise(tiling, seed, 3).reshape(-1, 3)
    visual = features[selection.gather]
    assert selection.merge is not None
    merge_rows(visual, selection.gather, selection.merge, lambda rows: features[rows])
    side = round(selection.counts[0] ** 0.5)
    expected = []
    for patches, (rows, columns) in zip(
        (np.arange(16).reshape(4, 4), tiling.window_index), grids(tiling, side), strict=True
    ):
        for row in range(rows):
            for column in range(columns):
                down, across = touched(len(patches), rows, row), touched(patches.shape[1], columns, column)
                cell = [features[patches[i, j]].astype(np.float64) for i in down for j in across]
                expected.append(sum(cell) / len(cell))
    np.testing.assert_allclose(visual, np.array(expected).reshape(-1, 3), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 110))
def test_a_pooled_row_gets_one_newline(height: int, width: int, budget: int) -> None:
    tiling = tile(height, width, SMALL)
    selection = chosen(tiling, budget, "kept-rows")
    side = round(selection.counts[0] ** 0.5)
    (_, (rows, columns)) = grids(tiling, side)
    assert selection.newlines == rows
    ends = np.flatnonzero(selection.gather == -1).tolist()
    assert ends == [side * side + row * (columns + 1) + columns for row in range(rows)]
    assert selection.visual_tokens == side * side + rows * (columns + 1) * bool(rows) <= budget
    if side < 4:
        (_, (more, wider)) = grids(tiling, side + 1)
        assert (side + 1) ** 2 + more * (wider + 1) > budget


def test_a_worked_example() -> None:
    """One tile of 4 x 4 at a budget of 5: 2 x 2 cells of four patches. At 9: 3 x 3 cells that overlap."""
    tiling = tile(56, 56, SINGLE)
    seen = View(tiling, np.ones((1, 16)), np.ones((1, 16)))
    mask = POLICY.prepare(seen, HALF)(5)
    assert np.flatnonzero(mask).tolist() == [0, 2, 8, 10]
    assert POLICY.merge is not None
    merge = POLICY.merge(seen, mask)
    cells = {
        patch: (merge.source[merge.target == patch].tolist(), set(merge.weight[merge.target == patch].tolist()))
        for patch in (0, 2, 8, 10)
    }
    assert cells == {
        0: ([0, 1, 4, 5], {0.25}),
        2: ([2, 3, 6, 7], {0.25}),
        8: ([8, 9, 12, 13], {0.25}),
        10: ([10, 11, 14, 15], {0.25}),
    }
    mask = POLICY.prepare(seen, HALF)(9)
    merge = POLICY.merge(seen, mask)
    assert np.flatnonzero(mask).tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert merge.source[merge.target == 5].tolist() == [5, 6, 9, 10]


@pytest.mark.parametrize("newlines", ["none", "kept-rows", "all-rows"])
def test_room_for_everything_changes_nothing(newlines: str) -> None:
    tiling = tile(90, 112, SMALL)
    selection = chosen(tiling, tiling.stock_tokens, newlines)
    assert selection.kept == tiling.eligible_tokens
    features = noise(tiling, 1).reshape(-1, 24)
    visual = features[selection.gather]
    visual[selection.gather < 0] = 7
    before = visual.copy()
    assert selection.merge is not None
    merge_rows(visual, selection.gather, selection.merge, lambda rows: features[rows])
    np.testing.assert_array_equal(visual, before)
