"""The geometry and the stock order against `transformers`' own LLaVA-NeXT."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel, image_size_to_num_patches
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from hired_edge.packing import stock_gather
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import TABLE

NEXT = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SMALL = TilingRules("anyres", 112, 14, ((112, 224), (224, 112), (224, 224), (336, 112), (112, 336), (224, 336)))

SIDES = st.one_of(st.integers(1, 4000), st.sampled_from([1, 20, 111, 112, 113, 335, 336, 337, 672, 1008, 5000, 60000]))


def stock_features(height: int, width: int, rules: TilingRules) -> list[int]:
    """Patch ids p*N + j in the order in which `pack_image_features` leaves them, -1 for the newline."""
    pinpoints = [list(canvas) for canvas in rules.pinpoints]
    tiles = image_size_to_num_patches((height, width), pinpoints, rules.image_size)
    features = torch.arange(tiles * rules.patches_per_tile, dtype=torch.float64).reshape(tiles, -1, 1)
    vision = SimpleNamespace(image_size=rules.image_size, patch_size=rules.patch_size)
    model: Any = SimpleNamespace(config=SimpleNamespace(vision_config=vision, image_grid_pinpoints=pinpoints))
    newline = torch.full((1,), -1.0, dtype=torch.float64)
    packed, lengths = LlavaNextModel.pack_image_features(model, [features], [(height, width)], "default", newline)
    assert lengths.tolist() == [len(packed[0])]
    return packed[0][:, 0].long().tolist()


def placeholders(height: int, width: int, rules: TilingRules) -> int:
    """How many image tokens the processor puts into the prompt."""
    processor: Any = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=[list(canvas) for canvas in rules.pinpoints]),
        patch_size=rules.patch_size,
        num_additional_image_tokens=0,
    )
    processor._get_unpadded_features = lambda *args: LlavaNextProcessor._get_unpadded_features(processor, *args)
    side = rules.image_size
    return LlavaNextProcessor._get_number_of_features(processor, height, width, side, side)


def check(tiling: Tiling) -> None:
    size, rules = (tiling.height, tiling.width), tiling.rules
    assert tiling.canvas == select_best_resolution(size, [list(canvas) for canvas in rules.pinpoints])
    picture = np.broadcast_to(np.uint8(0), (3, *size))
    assert tiling.resized == get_patch_output_size(picture, tiling.canvas, ChannelDimension.FIRST)
    vertical, horizontal = LlavaNextImageProcessorPil()._get_padding_size(tiling.resized, tiling.canvas)
    assert tiling.padding == (*vertical, *horizontal)
    order = stock_features(*size, rules)
    assert stock_gather(tiling).tolist() == order
    assert tiling.stock_tokens == len(order) == placeholders(*size, rules)


@pytest.mark.parametrize(("width", "height"), TABLE)
def test_table(width: int, height: int) -> None:
    check(tile(height, width, NEXT))


@pytest.mark.parametrize(("width", "height"), [(176, 55), (55, 88), (99, 88), (1128, 47), (861, 328)])
def test_sizes_that_floats_put_just_below_a_whole_row(width: int, height: int) -> None:
    check(tile(height, width, NEXT))


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES)
def test_random_sizes(height: int, width: int) -> None:
    check(tile(height, width, NEXT))


@settings(max_examples=250, deadline=None)
@given(SIDES, SIDES)
def test_random_sizes_with_other_tiles(height: int, width: int) -> None:
    check(tile(height, width, SMALL))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1200), st.data())
def test_sizes_near_a_canvas_aspect(height: int, data: st.DataObject) -> None:
    """Where a rounding error would change the grid or add a row of padding."""
    canvas = data.draw(st.sampled_from(NEXT.pinpoints))
    width = max(1, height * canvas[1] // canvas[0] + data.draw(st.integers(-2, 2)))
    check(tile(height, width, NEXT))


@pytest.mark.parametrize(("width", "height"), [(300, 170), (170, 300), (1, 1), (500, 20)])
def test_tiles_are_cut_where_the_processor_cuts(width: int, height: int) -> None:
    """Pixels that are white stay white inside the picture's place, and the padding around it is raw zero."""
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": SMALL.image_size},
        crop_size={"height": SMALL.image_size, "width": SMALL.image_size},
        image_grid_pinpoints=[list(canvas) for canvas in SMALL.pinpoints],
        do_rescale=False,
        do_normalize=False,
    )
    white = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels = np.array(processor(white, input_data_format="channels_last", return_tensors="np")["pixel_values"][0])
    tiling, side = tile(height, width, SMALL), SMALL.image_size
    assert len(pixels) == tiling.tiles
    top, bottom, left, right = tiling.padding
    canvas = np.zeros(tiling.canvas)
    canvas[top : tiling.canvas[0] - bottom, left : tiling.canvas[1] - right] = 255
    for i in range(tiling.tiles - 1):
        row, column = i // tiling.grid[1] * side, i % tiling.grid[1] * side
        assert (pixels[1 + i] == canvas[row : row + side, column : column + side]).all()
