"""Policy spatial-pooling against torch's adaptive average pooling, on the base picture and on the mosaic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool2d

from hired_edge.merging import merge_rows
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.selection import select
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import noise

SMALL = TilingRules("anyres", 112, 14, ((112, 224), (224, 112), (224, 224), (336, 112), (112, 336)))
FULL = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SINGLE = TilingRules("single", 336, 14)


def check(tiling: Tiling, budget: int, seed: int) -> None:
    features = noise(tiling, seed, 5).reshape(-1, 5)
    maps = [np.ones((tiling.tiles, tiling.rules.patches_per_tile), np.float32)]
    (selection,) = select([tiling], maps, maps, budget, "spatial-pooling")
    visual = features[selection.gather]
    visual[selection.gather < 0] = np.nan
    assert selection.merge is not None
    merge_rows(visual, selection.gather, selection.merge, lambda rows: features[rows])
    whole = tiling.rules.patches_per_side
    side = round(selection.counts[0] ** 0.5)
    expected = [pooled(features[: whole * whole], (whole, whole), (side, side))]
    rows, columns = tiling.rows * side // whole, tiling.columns * side // whole
    if rows and columns:
        window = features[tiling.window_index.reshape(-1)]
        mosaic = pooled(window, (tiling.rows, tiling.columns), (rows, columns)).reshape(rows, columns, -1)
        ends = np.full((rows, 1 if selection.newlines else 0, 5), np.nan, np.float32)
        expected.append(np.concatenate([mosaic, ends], axis=1).reshape(-1, 5))
    np.testing.assert_allclose(visual, np.concatenate(expected), atol=1e-5)


def pooled(rows: np.ndarray, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """(h * w, D) -> (cells, D)."""
    if not cells[0]:
        return rows[:0]
    maps = torch.from_numpy(rows.T.reshape(1, -1, *shape).copy())
    return adaptive_avg_pool2d(maps, cells)[0].flatten(1).T.numpy()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 400), st.integers(0, 10**6))
def test_any_picture_at_any_budget(height: int, width: int, budget: int, seed: int) -> None:
    check(tile(height, width, SMALL), budget, seed)


@pytest.mark.parametrize(("size", "rules"), [((480, 640), FULL), ((300, 1000), FULL), ((500, 500), SINGLE)])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.9])
def test_tiles_of_the_real_size(size: tuple[int, int], rules: TilingRules, share: float) -> None:
    tiling = tile(*size, rules)
    check(tiling, int(share * tiling.patches), 1)


def test_every_side_of_a_square() -> None:
    """The base picture alone, all 24 sizes."""
    tiling = tile(336, 336, SINGLE)
    features = noise(tiling, 2, 3)[0]
    policy, maps = POLICIES["spatial-pooling"], np.ones((1, 576), np.float32)
    assert policy.merge is not None
    for side in range(1, 25):
        view = View(tiling, maps, maps)
        mask = policy.prepare(view, Fraction(1, 2))(side * side)
        kept = np.flatnonzero(mask)
        visual = features[kept]
        merge_rows(visual, kept, policy.merge(view, mask), lambda rows: features[rows])
        np.testing.assert_allclose(visual, pooled(features, (24, 24), (side, side)), atol=1e-5)
