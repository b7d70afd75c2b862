"""Pictures padded to a square in the mean colour, as LLaVA-1.5's and ShareGPT4V's original code does, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hired_edge.preprocessing import pad_to_square
from hired_edge.processors import preprocess_rules
from hired_runtime import preprocess
from tests.host.test_preprocess_parity import Pair, config, noise


def expanded(picture: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The original code's padding, here by numpy: the picture centred, the odd pixel below or to the right."""
    side = max(picture.size)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = colour
    top, left = (side - picture.height) // 2, (side - picture.width) // 2
    square[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
    return Image.fromarray(square)


@pytest.mark.parametrize("size", [(203, 121), (121, 204), (336, 336), (20, 700), (700, 1), (1, 1), (50, 40)], ids=str)
def test_padding_as_the_original_code_does(size: tuple[int, int], tmp_path: Path) -> None:
    """`image_aspect_ratio: pad`: CLIP's processor on the picture that was expanded in its mean's colour."""
    pair = Pair(tmp_path, "single", config("single", 336, "CLIPImageProcessor"))
    picture = noise(*size)
    reference = pair.reference(expanded(picture, tuple(int(mean * 255) for mean in pair.theirs.image_mean)))
    pair.rules = pad_to_square(pair.rules)
    assert pair.rules.pad_colour == (122, 116, 104)
    assert np.array_equal(pair.ours(picture), reference)


@given(width=st.integers(1, 300), height=st.integers(1, 300), edge=st.integers(56, 90), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_large_squares_are_never_made(
    width: int, height: int, edge: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = preprocess_rules({"size": {"shortest_edge": edge}, "crop_size": {"height": 56, "width": 56}}, "single")
    picture, rules = noise(width, height, seed), pad_to_square(plain)
    whole = preprocess.base_tile(picture, rules)
    with monkeypatch.context() as context:
        context.setattr(preprocess, "_LARGE_SQUARE", 0)
        assert np.array_equal(preprocess.base_tile(picture, rules), whole)


@pytest.mark.parametrize("size", [(65535, 1), (1, 65535)], ids=str)
def test_padded_slivers_need_no_gigabytes(size: tuple[int, int]) -> None:
    rules = pad_to_square(preprocess_rules({"size": 56, "crop_size": 56}, "single"))
    tile_of = preprocess.base_tile(Image.new("RGB", size, (255, 0, 128)), rules)
    near = np.unique(np.abs(tile_of.astype(int) - rules.pad_colour).reshape(-1, 3).max(axis=1))
    assert near.max() <= 1  # one of 65535 rows, in a 56th of them
