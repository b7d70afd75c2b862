"""The picture of the kept tokens, by its pixels: what was kept is untouched, what was dropped is darker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hired_edge.errors import InputError
from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import Tiling, TilingRules, tile
from hired_runtime.drawing import Panel, draw_kept, kept_panels

NEXT = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
LLAVA = TilingRules("single", 336, 14)
SIZES = [(640, 480), (480, 640), (1000, 300), (672, 672), (300, 1000), (1920, 1080), (5000, 20), (20, 5000), (1, 1)]

Kept = list[NDArray[np.int64]]


def photo(width: int, height: int) -> Image.Image:
    """Bright noise: everything on it can be darkened."""
    rng = np.random.default_rng(width * 10_007 + height)
    return Image.fromarray(rng.integers(100, 256, (height, width, 3), dtype=np.uint8))


def some(tiling: Tiling, share: float, seed: int = 0) -> Kept:
    """Random eligible patches of every partition."""
    chosen = np.random.default_rng(seed).random(tiling.eligible.shape) < share
    return [np.flatnonzero(row) for row in chosen & tiling.eligible]


def centres(parts: int, patch_px: float, offset: float, length: float, pixels: int) -> NDArray[np.int64]:
    """The panel pixel at the centre of each patch along one axis; -1 outside the picture."""
    at = np.floor(((np.arange(parts) + 0.5) * patch_px - offset) / length * pixels).astype(np.int64)
    return np.where((at >= 0) & (at < pixels), at, -1)


def assert_clear_or_darker(
    panel: Panel, whole: Image.Image, kept: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> None:
    """`kept` of the panel's patches, (rows, columns), and the pixel at each one's centre."""
    kept = kept[np.ix_(rows >= 0, columns >= 0)]
    grid = np.ix_(rows[rows >= 0], columns[columns >= 0])
    resized = np.asarray(whole.resize(panel.image.size, Image.Resampling.BICUBIC))[grid]
    drawn = np.asarray(panel.image)[grid]
    assert (drawn[kept] == resized[kept]).all()
    assert (drawn[~kept].max(axis=-1, initial=0) < resized[~kept].min(axis=-1, initial=255)).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kept_patches_are_untouched_and_dropped_ones_darker(size: tuple[int, int]) -> None:
    width, height = size
    picture, tiling = photo(width, height), tile(height, width, NEXT)
    indices = some(tiling, 0.4)
    flat = np.zeros(tiling.patches, np.bool_)
    flat[np.concatenate([partition * 576 + patches for partition, patches in enumerate(indices)])] = True
    base, mosaic = kept_panels(picture, tiling, indices)
    wide, high = base.image.size
    rows, columns = centres(24, 14, 0, 336, high), centres(24, 14, 0, 336, wide)
    if min(high, wide) >= 24 * 12:  # in smaller patches the outline takes the centre
        assert_clear_or_darker(base, picture, flat[:576].reshape(24, 24), rows, columns)
    (grid_h, grid_w), (top, _, left, _), (fit_h, fit_w) = tiling.grid, tiling.padding, tiling.resized
    rows = centres(24 * grid_h, 14, top, fit_h, high)
    columns = centres(24 * grid_w, 14, left, fit_w, wide)
    if min(fit_h, fit_w) >= 100:
        assert_clear_or_darker(mosaic, picture, flat[tiling.mosaic_index], rows, columns)
    assert base.kept + mosaic.kept == flat.sum()
    assert base.eligible + mosaic.eligible == tiling.eligible_tokens


@pytest.mark.parametrize(
    ("size", "edge"), [((640, 480), 336), ((480, 640), 448), ((400, 400), 336), ((2, 2), 336)], ids=str
)
def test_a_single_partition_sees_the_centre(size: tuple[int, int], edge: int) -> None:
    width, height = size
    picture, tiling = photo(width, height), tile(height, width, LLAVA)
    indices = some(tiling, 0.4)
    rules = PreprocessRules(336, edge, 3, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    (panel,) = kept_panels(picture, tiling, indices, rules=rules)
    wide, high = panel.image.size
    # The shorter side measures `edge` px; the 336 in its middle are seen.
    scale = min(wide, high) / edge
    rows = centres(24, 14, -(high / scale - 336) / 2, high / scale, high)
    columns = centres(24, 14, -(wide / scale - 336) / 2, wide / scale, wide)
    kept = np.isin(np.arange(576), indices[0]).reshape(24, 24)
    assert_clear_or_darker(panel, picture, kept, rows, columns)
    unseen = np.ones((high, wide), np.bool_)
    unseen[max(rows[0] - 20, 0) : rows[-1] + 20, max(columns[0] - 20, 0) : columns[-1] + 20] = False
    assert (np.asarray(panel.image)[unseen] < 40).all()


@pytest.mark.parametrize("size", [(640, 480), (300, 1200), (400, 400), (65535, 1)], ids=str)
def test_a_padded_partition_sees_the_square(size: tuple[int, int]) -> None:
    width, height = size
    picture, tiling = photo(width, height), tile(height, width, LLAVA)
    indices = some(tiling, 0.4)
    rules = PreprocessRules(336, 336, 3, 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (200, 150, 220))
    (panel,) = kept_panels(picture, tiling, indices, rules=rules)
    side, high = panel.image.size
    assert side == high
    kept = np.isin(np.arange(576), indices[0]).reshape(24, 24)
    at = centres(24, 14, 0, 336, side)
    drawn = np.asarray(panel.image)[np.ix_(at, at)]
    if width > height:  # the first rows of patches are padding, eligible as all are
        padding = (drawn[:2], kept[:2])
        assert (padding[0][padding[1]] == (200, 150, 220)).all()
        assert (padding[0][~padding[1]].max(axis=-1) < 150).all()


@pytest.mark.parametrize("rules", [NEXT, LLAVA], ids=lambda rules: rules.kind)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_everything_kept_is_the_picture_itself(rules: TilingRules, size: tuple[int, int]) -> None:
    width, height = size
    picture, tiling = photo(width, height), tile(height, width, rules)
    everything = [np.flatnonzero(row) for row in tiling.eligible]
    base, *_ = kept_panels(picture, tiling, everything)
    drawn = np.asarray(base.image)
    if rules is NEXT:
        assert np.array_equal(drawn, np.asarray(picture.resize(base.image.size, Image.Resampling.BICUBIC)))
    else:
        middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
        assert (middle >= 90).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_kept_is_dark_everywhere(size: tuple[int, int]) -> None:
    width, height = size
    tiling = tile(height, width, NEXT)
    for panel in kept_panels(Image.new("RGB", size, "white"), tiling, [[]] * tiling.tiles):
        assert np.asarray(panel.image).max() < 100
        assert panel.kept == 0


@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), rules=st.sampled_from([NEXT, LLAVA]), share=st.floats(0, 1)
)
@settings(max_examples=25, deadline=None)
def test_any_size_gives_a_sheet_of_sane_size(width: int, height: int, rules: TilingRules, share: float) -> None:
    tiling = tile(height, width, rules)
    drawn = draw_kept(Image.new("RGB", (width, height), "orange"), tiling, some(tiling, share))
    assert drawn.mode == "RGB"
    assert min(drawn.size) >= 180
    assert max(drawn.size) <= 2 * 880 + 100


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_both_panels_are_in_the_sheet(size: tuple[int, int]) -> None:
    tiling = tile(size[1], size[0], NEXT)
    picture, indices = photo(*size), some(tiling, 0.5)
    sheet = np.asarray(draw_kept(picture, tiling, indices))
    panels = [np.asarray(panel.image) for panel in kept_panels(picture, tiling, indices)]
    high, wide, _ = panels[0].shape
    beside = wide <= 2 * high
    assert (sheet.shape[1] >= 2 * wide) if beside else (sheet.shape[0] >= 2 * high)
    for panel in panels:
        # Lines and labels cover little of a panel; the rest is there unchanged, somewhere.
        strip = panel[high // 2 + 3 : high // 2 + 9, wide // 4 : wide // 4 + 30]
        windows = np.lib.stride_tricks.sliding_window_view(sheet, strip.shape[:2], axis=(0, 1))
        candidates = (windows[..., 0, 0] == strip[0, 0]).all(axis=-1)
        assert any((window == strip.transpose(2, 0, 1)).all() for window in windows[candidates])


def test_small_tiles_and_patches_that_do_not_divide_them() -> None:
    rules = TilingRules("anyres", 30, 8, ((30, 60), (60, 60)))  # 3 patches of 8 px; the last 6 px belong to none
    tiling = tile(60, 60, rules)
    base, _ = kept_panels(Image.new("RGB", (60, 60), "white"), tiling, [np.flatnonzero(row) for row in tiling.eligible])
    drawn = np.asarray(base.image).max(axis=-1)
    clear = round(base.image.width * 24 / 30)
    assert (drawn[: clear - 2, : clear - 2] == 255).all()
    assert (drawn[clear + 3 :] < 40).all()


def test_writes_a_file(tmp_path: Path) -> None:
    tiling = tile(480, 640, NEXT)
    drawn = draw_kept(photo(640, 480), tiling, some(tiling, 0.2), tmp_path / "kept.png")
    with Image.open(tmp_path / "kept.png") as read:
        assert np.array_equal(np.asarray(read), np.asarray(drawn))


@pytest.mark.parametrize("name", ["nowhere/kept.png", "kept.unknown", "kept"])
def test_a_path_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    tiling = tile(480, 640, LLAVA)
    with pytest.raises(InputError, match="cannot be written") as error:
        draw_kept(photo(640, 480), tiling, [[1]], tmp_path / name)
    assert str(error.value).isprintable()
    assert not (tmp_path / name).exists()
