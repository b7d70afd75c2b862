"""Kind "dynamic" (InternVL): tiles that cover the picture, a base picture that is packed last, budgets to the token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.budget import parse_budget
from hired_edge.errors import CheckpointError, InputError
from hired_edge.geometry.dynamic import canvases
from hired_edge.packing import newline_policy, stock_gather
from hired_edge.policies.hired import sub_image_scores
from hired_edge.selection import select
from hired_edge.tiling import TilingRules, tile

RULES = TilingRules("dynamic", 56, 28, canvases(56, 1, 6))  # N = 4
LARGE = TilingRules("dynamic", 448, 28, canvases(448, 1, 12))  # InternVL's own: N = 256
SIDES = st.integers(1, 400)
SEEDS = st.integers(0, 2**32 - 1)


def test_the_largest_picture_sizes_an_export() -> None:
    assert (LARGE.patches_per_tile, LARGE.max_tiles) == (256, 13)
    assert LARGE.max_stock_tokens == 13 * 256
    assert parse_budget("20%").max_tokens(LARGE) == round(0.2 * 13 * 256)
    alone = TilingRules("dynamic", 448, 28, canvases(448, 1, 1))
    assert (alone.max_tiles, alone.max_stock_tokens) == (1, 256)


def test_the_grids_in_the_processors_order() -> None:
    """By tiles; of as many, the narrow ones first: (columns, rows) as the processor lists them."""
    grids = [(width // 10, height // 10) for height, width in canvases(10, 1, 4)]
    assert grids == [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (2, 2), (4, 1)]
    assert canvases(10, 3, 4) == canvases(10, 1, 4)[3:]


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES)
def test_tile_after_tile_then_the_base_picture(height: int, width: int) -> None:
    tiling = tile(height, width, RULES)
    patches = tiling.tiles * 4
    assert stock_gather(tiling).tolist() == [*range(4, patches), *range(4)]
    assert tiling.stock_tokens == tiling.eligible_tokens == tiling.patches == patches
    assert tiling.eligible.all()
    assert tiling.newlines == 0
    assert tiling.padding == (0, 0, 0, 0)
    assert tiling.tiles == (1 + tiling.grid[0] * tiling.grid[1] if tiling.grid != (0, 0) else 1)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES)
def test_each_base_patch_lies_in_the_tiles_above_it(height: int, width: int) -> None:
    """By area, counted on a fine raster of the base picture."""
    tiling = tile(height, width, RULES)
    rows, columns = tiling.grid
    if not rows:
        assert tiling.coverage.shape == (0, 4)
        return
    fine = 60  # what 1 to 6 tiles and 2 patches a side divide
    places = np.arange(fine)
    patch = (places * 2 // fine)[:, None] * 2 + places * 2 // fine
    piece = (places * rows // fine)[:, None] * columns + places * columns // fine
    counted = np.zeros(tiling.coverage.shape)
    np.add.at(counted, (piece.ravel(), patch.ravel()), 4 / fine**2)
    np.testing.assert_allclose(tiling.coverage, counted, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SEEDS, st.integers(0, 40), st.sampled_from(["hired", "top-cls", "uniform", "random"]))
def test_budgets_are_spent_to_the_token(height: int, width: int, seed: int, budget: int, policy: str) -> None:
    tiling = tile(height, width, RULES)
    allocation, attention = np.random.default_rng(seed).random((2, tiling.tiles, 4)).astype(np.float32)
    (chosen,) = select([tiling], [allocation], [attention], budget, policy)
    assert chosen.visual_tokens == chosen.kept == min(budget, tiling.patches)
    assert chosen.newlines == 0
    order = stock_gather(tiling).tolist()
    assert [order[place] for place in chosen.places] == chosen.gather.tolist()
    assert (np.diff(chosen.places) > 0).all()


def test_the_thumbnail_weighs_the_tiles() -> None:
    """All of its attention on the right half: the right tile's tokens are kept, and none of the left one."""
    tiling = tile(56, 112, RULES)
    assert tiling.grid == (1, 2)
    allocation = np.zeros((3, 4), np.float32)
    allocation[0] = [0, 1, 0, 1]
    assert sub_image_scores(tiling, allocation) == [0.0, 2.0]
    attention = np.tile(np.array([4, 3, 2, 1], np.float32), (3, 1))
    (chosen,) = select([tiling], [allocation], [attention], 4)
    assert chosen.counts == [2, 0, 2]
    assert chosen.gather.tolist() == [8, 9, 0, 1], "tiles first, in their order; the whole picture last"


def test_there_are_no_newlines() -> None:
    tiling = tile(56, 112, RULES)
    assert newline_policy(tiling, None) == newline_policy(tiling, "none") == "none"
    with pytest.raises(InputError, match="newline policy 'all-rows' for a model without newlines"):
        newline_policy(tiling, "all-rows")


def test_rules_that_no_picture_could_be_cut_by() -> None:
    with pytest.raises(CheckpointError, match="0 grid pinpoints for tiling kind 'dynamic'; expected at least one"):
        TilingRules("dynamic", 56, 28)
    with pytest.raises(CheckpointError, match=r"grid pinpoint \(57, 56\)"):
        TilingRules("dynamic", 56, 28, ((57, 56),))
