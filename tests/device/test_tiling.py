from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.errors import CheckpointError, InputError
from hired_edge.tiling import Tiling, TilingRules, tile

NEXT = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SMALL = TilingRules("anyres", 112, 14, ((112, 224), (224, 112), (224, 224), (336, 112), (112, 336), (224, 336)))
SINGLE = TilingRules("single", 336, 14)
SIDES = st.integers(1, 3000)

# Width, height, canvas (h, w), rows, columns, length at 100 %, the same without newlines: as transformers has them.
TABLE = [
    (640, 480, (672, 672), 36, 48, 2340, 2304),
    (480, 640, (672, 672), 48, 36, 2352, 2304),
    (1000, 300, (336, 1008), 22, 72, 2182, 2160),
    (672, 672, (672, 672), 48, 48, 2928, 2880),
    (336, 1008, (1008, 336), 72, 24, 2376, 2304),
    (1008, 336, (336, 1008), 24, 72, 2328, 2304),
    (336, 336, (336, 672), 24, 24, 1176, 1152),
    (1920, 1080, (672, 672), 28, 48, 1948, 1920),
    (1024, 899, (672, 672), 42, 48, 2634, 2592),
    (5000, 20, (336, 1008), 0, 72, 576, 576),
    (20, 5000, (1008, 336), 72, 0, 648, 576),
]


@pytest.mark.parametrize(("width", "height", "canvas", "rows", "columns", "stock", "eligible"), TABLE)
def test_token_counts(
    width: int, height: int, canvas: tuple[int, int], rows: int, columns: int, stock: int, eligible: int
) -> None:
    tiling = tile(height, width, NEXT)
    assert tiling.canvas == canvas
    assert (tiling.rows, tiling.columns) == (rows, columns)
    assert tiling.stock_tokens == stock
    assert tiling.eligible_tokens == eligible
    assert tiling.eligible.sum() == eligible


def test_odd_padding_pixel_goes_right_and_down() -> None:
    assert tile(300, 1000, NEXT).resized == (303, 1008)
    assert tile(300, 1000, NEXT).padding == (16, 17, 0, 0)
    assert tile(5000, 20, NEXT).padding == (0, 0, 165, 166)


def test_unpad_rounds_what_floats_leave_just_below_a_whole_row() -> None:
    # 55 * (48 / 176) is 15 rows, and 14.999999999999998 in floats. An odd number keeps one row of padding.
    assert tile(55, 176, NEXT).window == (4, 20, 0, 48)


def test_most_tiles_and_longest_sequence() -> None:
    assert (NEXT.patches_per_tile, NEXT.max_tiles, NEXT.max_stock_tokens) == (576, 5, 2928)
    assert (SINGLE.patches_per_tile, SINGLE.max_tiles, SINGLE.max_stock_tokens) == (576, 1, 576)


@settings(max_examples=50, deadline=None)
@given(SIDES, SIDES)
def test_no_picture_exceeds_the_maxima(height: int, width: int) -> None:
    tiling = tile(height, width, SMALL)
    assert tiling.tiles <= SMALL.max_tiles
    assert tiling.stock_tokens <= SMALL.max_stock_tokens


def test_single_has_one_partition_and_no_mosaic() -> None:
    tiling = tile(20, 3000, SINGLE)
    assert (tiling.tiles, tiling.grid, tiling.rows, tiling.columns) == (1, (0, 0), 0, 0)
    assert (tiling.stock_tokens, tiling.eligible_tokens) == (576, 576)
    assert tiling.eligible.shape == (1, 576)
    assert tiling.eligible.all()
    assert tiling.coverage.shape == (0, 576)
    assert tiling.window_index.shape == (0, 0)


def test_patch_index_of_a_mosaic_cell() -> None:
    tiling = tile(200, 290, SMALL)  # 2 x 3 tiles of 8 x 8 patches
    assert tiling.grid == (2, 3)
    for row in range(16):
        for column in range(24):
            partition = 1 + row // 8 * 3 + column // 8
            assert tiling.mosaic_index[row, column] == partition * 64 + row % 8 * 8 + column % 8


def overlap(low: Fraction, high: Fraction, other_low: Fraction, other_high: Fraction) -> Fraction:
    return max(min(high, other_high) - max(low, other_low), Fraction(0))


def slow_coverage(tiling: Tiling, sub_image: int, patch: int) -> Fraction:
    """Lay the patch of the squashed picture onto the canvas, in px, and measure how much of it the tile covers."""
    side, tile_px = tiling.rules.patches_per_side, tiling.rules.image_size
    share = Fraction(1)
    places = (divmod(patch, side), divmod(sub_image, tiling.grid[1]), tiling.resized, tiling.padding[::2])
    for cell, tile_index, resized, padding in zip(*places, strict=True):
        size = Fraction(resized, side)
        low = padding + cell * size
        share *= overlap(low, low + size, Fraction(tile_index * tile_px), Fraction((tile_index + 1) * tile_px)) / size
    return share


@settings(max_examples=25, deadline=None)
@given(SIDES, SIDES)
def test_coverage_is_the_area_of_overlap(height: int, width: int) -> None:
    tiling = tile(height, width, SMALL)
    exact = [[slow_coverage(tiling, i, j) for j in range(64)] for i in range(tiling.tiles - 1)]
    assert np.allclose(tiling.coverage, np.array(exact, dtype=np.float64), rtol=0, atol=1e-12)
    assert np.allclose(tiling.coverage.sum(axis=0), 1.0, rtol=0, atol=1e-12)


def test_two_way_split_meets_in_the_middle_whatever_the_padding() -> None:
    coverage = tile(480, 640, NEXT).coverage.reshape(4, 24, 24)
    assert coverage[0, :12, :12].all()
    assert coverage.max() == 1.0
    assert coverage.sum(axis=(1, 2)).tolist() == [144.0] * 4


def test_three_way_split_shares_a_straddling_column_by_area() -> None:
    tiling = tile(336, 800, NEXT)
    assert tiling.resized == (336, 800)
    assert tiling.canvas == (336, 1008)
    # Left padding 104: tile 0 ends at canvas column 336, which is 24 * (336 - 104) / 800 = 6.96 base columns.
    first = tiling.coverage[0].reshape(24, 24)[0]
    assert first[:6].tolist() == [1.0] * 6
    assert first[6] == pytest.approx(0.96)
    assert not first[7:].any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 5000), (5000, 20), (1, 100000), (100000, 1)])
def test_degenerate_pictures_keep_the_base(height: int, width: int) -> None:
    tiling = tile(height, width, NEXT)
    assert tiling.eligible[0].all()
    assert tiling.window_index.shape == (tiling.rows, tiling.columns)
    assert tiling.eligible_tokens == 576 + tiling.rows * tiling.columns
    assert np.allclose(tiling.coverage.sum(axis=0), 1.0)


def test_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        tile(10, 10, NEXT).eligible[0, 0] = False


@pytest.mark.parametrize(("height", "width"), [(0, 10), (10, 0), (-1, 10)])
def test_picture_without_area_is_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{width} x {height} px"):
        tile(height, width, NEXT)


@pytest.mark.parametrize(
    ("kind", "image_size", "patch_size", "pinpoints"),
    [
        ("dynamic", 336, 14, ()),
        ("single", 336, 0, ()),
        ("single", 14, 336, ()),
        ("single", 336, 14, ((336, 336),)),
        ("anyres", 336, 14, ()),
        ("anyres", 336, 14, ((336, 500),)),
        ("anyres", 336, 14, ((0, 336),)),
    ],
)
def test_impossible_rules_are_refused(
    kind: str, image_size: int, patch_size: int, pinpoints: tuple[tuple[int, int], ...]
) -> None:
    with pytest.raises(CheckpointError):
        TilingRules(kind, image_size, patch_size, pinpoints)
