"""Where patches lie on the panels: the two ways of saying it agree, and agree with the picture's own geometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import TilingRules, tile
from hired_runtime.panels import Axis, panels

NEXT = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
UNEVEN = TilingRules("anyres", 30, 8, ((30, 60), (60, 60)))  # 3 patches of 8 px; the last 6 px belong to none
LLAVA = TilingRules("single", 336, 14)
PADDED = PreprocessRules(336, 336, 3, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (200, 150, 220))


@given(
    pixels=st.integers(1, 900),
    start=st.floats(-1, 0.5),
    length=st.floats(0.2, 3),
    tiles=st.integers(1, 4),
    rules=st.sampled_from([NEXT, UNEVEN]),
)
@settings(deadline=None)
def test_the_edges_hold_the_centres_of_the_patches_pixels(
    pixels: int, start: float, length: float, tiles: int, rules: TilingRules
) -> None:
    axis = Axis(start, length, tiles, rules)
    edges, centres = axis.edges(), (np.arange(pixels) + 0.5) / pixels
    assert edges.shape == (tiles * rules.patches_per_side, 2)
    found = np.full(pixels, -1)
    for patch, (first, last) in enumerate(edges):
        found[(centres >= first + 1e-9) & (centres < last - 1e-9)] = patch
    given_patches = axis.patch_of_pixel(pixels)
    near = np.abs(centres[:, None, None] - edges).min(axis=(1, 2)) < 1e-8  # rounding decides there
    assert (found == given_patches)[~near].all()


@pytest.mark.parametrize("rules", [NEXT, UNEVEN, LLAVA], ids=str)
@pytest.mark.parametrize("size", [(640, 480), (300, 1000), (5000, 20), (1, 1)], ids=str)
def test_every_patch_is_on_one_panel_and_every_partition_outlined(rules: TilingRules, size: tuple[int, int]) -> None:
    width, height = size
    tiling = tile(height, width, rules)
    plan = panels(tiling)
    flat = np.concatenate([layout.index.reshape(-1) for layout in plan.layouts])
    assert np.array_equal(np.sort(flat), np.arange(tiling.patches))
    assert [part.partition for layout in plan.layouts for part in layout.parts] == list(range(tiling.tiles))
    for layout in plan.layouts:
        assert layout.index.shape == (len(layout.rows.edges()), len(layout.columns.edges()))
        for _, _, (left, top, right, bottom) in layout.parts:
            assert 0 <= left <= right <= plan.width
            assert 0 <= top <= bottom <= plan.height


@pytest.mark.parametrize("size", [(640, 480), (300, 1000), (672, 672)], ids=str)
def test_tiles_cover_the_mosaics_panel_without_a_gap(size: tuple[int, int]) -> None:
    width, height = size
    plan = panels(tile(height, width, NEXT))
    area = sum((right - left) * (bottom - top) for _, _, (left, top, right, bottom) in plan.layouts[1].parts)
    assert area == pytest.approx(plan.width * plan.height)


def test_the_frame_is_what_a_family_looks_at() -> None:
    assert panels(tile(480, 640, NEXT)).frame == (0, 0, 640, 480)
    assert panels(tile(100, 1000, LLAVA)).frame == (350, 0, 650, 100)  # a sliver, cut to three times its height
    padded = panels(tile(480, 640, LLAVA), PADDED)
    assert (padded.frame, padded.padding) == ((0, -80, 640, 560), (200, 150, 220))
    assert padded.width == padded.height
    assert padded.layouts[0].rows.edges()[[0, -1]].reshape(-1)[[0, -1]].tolist() == pytest.approx([0, 1])


def test_a_single_partition_lies_in_the_middle() -> None:
    plan = panels(tile(480, 640, LLAVA), PreprocessRules(336, 336, 3, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    (layout,) = plan.layouts
    edges = layout.columns.edges()
    assert edges[0, 0] == pytest.approx(80 / 640)
    assert edges[-1, 1] == pytest.approx(560 / 640)
