"""InternVL's pictures against transformers' own processor: where the tiles lie, and every pixel of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_all_supported_aspect_ratios,
    get_optimal_tiled_canvas,
)

from hired_edge.errors import CheckpointError
from hired_edge.geometry.dynamic import canvases
from hired_edge.processors import preprocess_rules
from hired_edge.processors.got_ocr2 import tile_counts
from hired_edge.tiling import TilingRules, tile
from hired_export.families import FAMILIES
from hired_runtime.pictures import load_picture
from hired_runtime.preprocess import pixel_values
from tests.tiny.pictures import TABLE

SIDES = st.one_of(st.integers(1, 4000), st.sampled_from([1, 20, 447, 448, 449, 896, 1344, 5000, 60000]))
RANGES = st.one_of(st.just((1, 12)), st.tuples(st.integers(1, 64), st.integers(1, 64)).map(sorted))
TILES = st.sampled_from([28, 56, 384, 448])
GRIDS = st.tuples(st.integers(1, 12), st.integers(1, 12))
SIDE = 56
FILE: dict[str, Any] = {
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 0.00392156862745098,
    "resample": 3,
    "crop_size": None,
    "crop_to_patches": False,
    "do_center_crop": None,
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"), True),
    "min_patches": 1,
    "max_patches": 12,
}
"""As the published repositories have it, but for the side."""


def check(height: int, width: int, fewest: int, most: int, side: int = 448) -> None:
    rules = TilingRules("dynamic", side, 28, canvases(side, fewest, most))
    listed = get_all_supported_aspect_ratios(fewest, most)
    assert [rules.grid(canvas)[::-1] for canvas in rules.pinpoints] == listed
    columns, rows = get_optimal_tiled_canvas((height, width), (side, side), fewest, most)
    tiling = tile(height, width, rules)
    assert tiling.grid == ((rows, columns) if rows * columns > 1 else (0, 0))
    assert tiling.canvas == tiling.resized == ((rows * side, columns * side) if rows * columns > 1 else (0, 0))
    processor = GotOcr2ImageProcessorPil(size={"height": side, "width": side})
    asked = {"crop_to_patches": True, "min_patches": fewest, "max_patches": most}
    assert tiling.tiles == processor.get_number_of_image_patches(height, width, asked)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, RANGES, TILES)
def test_random_sizes(height: int, width: int, range_: tuple[int, int], side: int) -> None:
    check(height, width, *range_, side)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3000), st.integers(-1, 1))
def test_sizes_at_a_grids_aspect(rows: int, columns: int, unit: int, off: int) -> None:
    """Where grids are equally near, the picture's area decides: around that area, and of any other."""
    check(max(1, rows * unit + off), columns * unit, 1, 12)


@settings(max_examples=100, deadline=None)
@given(GRIDS, GRIDS, st.integers(1, 40), TILES)
def test_sizes_halfway_between_two_grids(one: tuple[int, int], other: tuple[int, int], unit: int, side: int) -> None:
    """Neither is nearer, in whole numbers; what floats make of it is transformers' own affair, and ours as well."""
    rows, columns = one
    width, height = (columns * other[0] + other[1] * rows) * unit, 2 * rows * other[0] * unit
    check(height, width, 1, 12, side)


@pytest.mark.parametrize(("width", "height"), TABLE)
def test_table(width: int, height: int) -> None:
    check(height, width, 1, 12)


class Pair:
    """transformers' processor and our rules, read from the same file."""

    def __init__(self, **changes: Any) -> None:
        given = {**FILE, **changes}
        self.rules = preprocess_rules(given, "dynamic")
        self.tiling = TilingRules(
            "dynamic", self.rules.image_size, 28, canvases(self.rules.image_size, *tile_counts(given))
        )
        kept = {key: given[key] for key in given if key != "image_processor_type" and given[key] is not None}
        self.theirs = GotOcr2ImageProcessorPil(**{**kept, "crop_to_patches": True})  # as InternVL's processor calls it

    def check(self, picture: Image.Image) -> None:
        values: NDArray[np.float32] = self.theirs(picture, return_tensors="np")["pixel_values"]
        picture = load_picture(picture)
        ours = pixel_values(picture, tile(picture.height, picture.width, self.tiling), self.rules)
        assert ours.dtype == values.dtype == np.float32
        assert np.array_equal(np.roll(ours, -1, axis=0), values), "the whole picture is the last there"
        by_export = FAMILIES["internvl"].pixels(picture, self.tiling, self.rules).numpy()
        assert np.array_equal(by_export, ours)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 2), (1, 37), (56, 56), (57, 55), (150, 400), (640, 480), (900, 30)], ids=str
)
def test_every_pixel(size: tuple[int, int]) -> None:
    Pair().check(noise(*size))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 99))
def test_every_pixel_of_random_sizes(width: int, height: int, seed: int) -> None:
    Pair().check(noise(width, height, seed))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_patches": 1},
        {"min_patches": 4, "max_patches": 6},
        {"crop_to_patches": None},
        {"image_processor_type": None, "image_mean": None, "image_std": None, "max_patches": None},
        {"size": SIDE},
        {"image_processor_type": "GotOcr2ImageProcessor", "rescale_factor": 1 / 127.5},
    ],
    ids=str,
)
def test_styles_of_config(changes: dict[str, Any]) -> None:
    for size in ((203, 121), (40, 40)):
        Pair(**changes).check(noise(*size))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "'CLIPImageProcessor'; expected GotOcr2ImageProcessor"),
        ({"resample": 2}, "resample = 2; expected 3 (bicubic)"),
        ({"do_resize": False}, "do_resize = False"),
        ({"do_normalize": False}, "do_normalize = False"),
        ({"size": {"shortest_edge": 56}}, "expected height and width"),
        ({"size": {"height": 56, "width": 28}}, "equal height and width"),
        ({"image_std": [1, 0, 1]}, "three positive numbers"),
    ],
    ids=str,
)
def test_refused_files(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        preprocess_rules({**FILE, **changes}, "dynamic")
    assert words in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_patches": 65}, "max_patches = 65; expected at most 64"),
        ({"max_patches": 10**9}, "expected at most 64"),
        ({"max_patches": 0}, "max_patches = 0; expected a positive integer"),
        ({"min_patches": True}, "min_patches = True; expected a positive integer"),
        ({"min_patches": 7, "max_patches": 6}, "min_patches = 7; expected at most max_patches, 6"),
        ({"max_patches": "12"}, "max_patches = '12'"),
    ],
    ids=str,
)
def test_refused_numbers_of_tiles(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        tile_counts({**FILE, **changes})
    assert words in str(error.value)
