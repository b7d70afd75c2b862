"""Pictures on disk -> pixel_values, bit for bit as `load_image` and the PIL-backed processors of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

from hired_edge.errors import CheckpointError
from hired_edge.preprocessing import PreprocessRules
from hired_edge.processors import preprocess_rules
from hired_edge.tiling import TilingRules, tile
from hired_runtime import preprocess
from hired_runtime.pictures import load_picture
from hired_runtime.preprocess import pixel_values
from tests.tiny.pictures import TABLE

GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
PROCESSORS = {"anyres": "LlavaNextImageProcessor", "single": "CLIPImageProcessor"}  # as the published checkpoints say

PADDED = "LlavaImageProcessor with do_pad"

# The reference's table (width, height), then degenerate and awkward ones.
SIZES = [
    *TABLE,
    (1, 1),
    (3, 2),
    (1, 37),
    (37, 1),
    (335, 337),
    (1009, 671),
    (150, 4000),
    (60, 9000),
]


def config(kind: str, side: int, processor: str) -> dict[str, Any]:
    base: dict[str, Any] = {
        "image_processor_type": processor,
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "rescale_factor": 0.00392156862745098,
        "resample": 3,
        **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True),
    }
    if processor == PADDED:
        base |= {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
    if kind == "anyres":
        base["image_grid_pinpoints"] = [[rows * side, columns * side] for rows, columns in GRIDS]
    return base


def tiling_rules(kind: str, side: int) -> TilingRules:
    pinpoints = tuple((rows * side, columns * side) for rows, columns in GRIDS) if kind == "anyres" else ()
    return TilingRules(kind, side, 14, pinpoints)


class Pair:
    """A checkpoint's processor and our rules, read from the same file."""

    def __init__(self, folder: Path, kind: str, processor_config: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "preprocessor_config.json").write_text(json.dumps(processor_config))
        self.theirs = AutoImageProcessor.from_pretrained(folder, backend="pil")
        assert type(self.theirs).__name__.endswith("Pil")
        self.rules = preprocess_rules(json.loads((folder / "preprocessor_config.json").read_text()), kind)
        self.tiling_rules = tiling_rules(kind, self.rules.image_size)

    def reference(self, source: Path | Image.Image) -> NDArray[np.float32]:
        picture = load_image(str(source) if isinstance(source, Path) else source)
        values = self.theirs(picture, return_tensors="np")["pixel_values"]
        return values[0] if values.ndim == 5 else values

    def ours(self, source: Path | Image.Image) -> NDArray[np.float32]:
        picture = load_picture(source)
        return pixel_values(picture, tile(picture.height, picture.width, self.tiling_rules), self.rules)

    def assert_equal(self, source: Path | Image.Image) -> None:
        ours, reference = self.ours(source), self.reference(source)
        assert ours.dtype == reference.dtype == np.float32
        assert ours.flags.c_contiguous
        assert ours.shape == reference.shape
        assert np.array_equal(ours, reference)


PAIRS = [
    ("anyres", 336, "LlavaNextImageProcessor"),
    ("anyres", 56, "LlavaNextImageProcessor"),
    ("single", 336, "CLIPImageProcessor"),
    ("single", 112, "LlavaImageProcessor"),
    ("single", 56, PADDED),
]


@pytest.fixture(scope="module", params=PAIRS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    kind, side, processor = request.param
    return Pair(tmp_path_factory.mktemp("checkpoint"), kind, config(kind, side, processor))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a gradient: every byte value, and both clipped ends of the bicubic filter."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(-60, 315, width)[None, :, None] + np.linspace(-40, 40, height)[:, None, None]
    return Image.fromarray(np.clip(slope + rng.normal(0, 60, (height, width, 3)), 0, 255).astype(np.uint8))


def sixteen_bit(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 3)


def with_alpha(picture: Image.Image) -> Image.Image:
    faded = picture.copy()
    faded.putalpha(picture.convert("L"))
    return faded


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


Write = Callable[[Image.Image, Path], None]
FILES: dict[str, Write] = {
    "rgb.png": lambda p, path: p.save(path),
    "rgb.jpg": lambda p, path: p.save(path, quality=90),
    "rgb.webp": lambda p, path: p.save(path),
    "rgb.bmp": lambda p, path: p.save(path),
    "rgb.tiff": lambda p, path: p.save(path),
    "grey.png": lambda p, path: p.convert("L").save(path),
    "grey.jpg": lambda p, path: p.convert("L").save(path),
    "bits.png": lambda p, path: p.convert("1").save(path),
    "palette.png": lambda p, path: p.convert("P").save(path),
    "palette-transparent.png": lambda p, path: p.convert("P").save(path, transparency=bytes(range(256))),
    "rgba.png": lambda p, path: with_alpha(p).save(path),
    "grey-alpha.png": lambda p, path: with_alpha(p).convert("LA").save(path),
    "16-bit.png": lambda p, path: sixteen_bit(p).save(path),
    "16-bit.tiff": lambda p, path: sixteen_bit(p).save(path),
    "cmyk.jpg": lambda p, path: p.convert("CMYK").save(path),
    "animated.gif": lambda p, path: p.save(path, save_all=True, append_images=[p.rotate(180)]),
    "animated.webp": lambda p, path: p.save(path, save_all=True, append_images=[p.rotate(180)]),
    "turned.png": lambda p, path: p.save(path, exif=orientation(7)),
    "turned.webp": lambda p, path: p.save(path, exif=orientation(8)),
    "turned.tiff": lambda p, path: p.save(path, exif=orientation(5)),
    **{f"turned-{n}.jpg": lambda p, path, n=n: p.save(path, exif=orientation(n)) for n in range(1, 9)},
}


@pytest.mark.filterwarnings("ignore:Palette images")
@pytest.mark.parametrize("name", FILES)
def test_files_of_every_mode(name: str, pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name](noise(203, 121), path)
    pair.assert_equal(path)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(size: tuple[int, int], pair: Pair) -> None:
    pair.assert_equal(noise(*size))


@given(width=st.integers(1, 900), height=st.integers(1, 900), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_sizes(pair: Pair, width: int, height: int, seed: int) -> None:
    # the processors would first blow a sliver up to gigabytes; test_slivers has those
    pair.assert_equal(noise(max(width, height // 40), max(height, width // 40), seed))


@pytest.mark.parametrize("size", [(5000, 20), (20, 5000), (700, 2), (2, 700), (9, 640)], ids=str)
def test_slivers(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(tmp_path, "single", config("single", 336, "CLIPImageProcessor"))
    picture = noise(*size)
    with monkeypatch.context() as context:  # the centre alone, whatever the size
        context.setattr(preprocess, "_LARGE_PIXELS", 0)
        windowed = pair.ours(picture)
    assert np.array_equal(windowed, pair.reference(picture))
    assert np.array_equal(windowed, pair.ours(picture))


@given(width=st.integers(1, 120), height=st.integers(1, 120), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_enlarged_window_is_pillows(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    side = int(rng.integers(max(width, height), 200))
    tall, wide = (int(rng.integers(side, 400)) for _ in range(2))
    top, left = int(rng.integers(0, tall - side + 1)), int(rng.integers(0, wide - side + 1))
    picture = noise(width, height, seed)
    whole = np.asarray(picture.resize((wide, tall), Image.Resampling.BICUBIC))
    window = preprocess._enlarged_window(np.asarray(picture), (tall, wide), (top, left), side)
    assert np.array_equal(window, whole[top : top + side, left : left + side])


@pytest.mark.parametrize("size", [(65535, 1), (1, 65535), (3000, 1)], ids=str)
def test_the_longest_slivers_need_no_gigabytes(size: tuple[int, int], tmp_path: Path) -> None:
    pair = Pair(tmp_path, "single", config("single", 336, "CLIPImageProcessor"))
    values = pair.ours(Image.new("RGB", size, (255, 0, 128)))
    red_green_blue = (np.array([255, 0, 128]) / 255 - pair.rules.image_mean) / pair.rules.image_std
    assert np.allclose(values, red_green_blue[None, :, None, None], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("single", {"size": 112, "crop_size": 112}),
        ("single", {"size": {"shortest_edge": 150}, "crop_size": {"height": 112, "width": 112}}),
        ("single", {"size": {"height": 112, "width": 112}}),
        ("single", {"size": {"height": 112, "width": 112}, "do_center_crop": False, "crop_size": None}),
        ("single", {"do_pad": False}),
        ("single", {"image_processor_type": "LlavaImageProcessor", "do_pad": True}),
        ("single", {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "image_mean": [0.5, 0.25, 0.1]}),
        ("single", {"image_processor_type": "CLIPImageProcessorFast"}),
        ("single", {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"}),
        ("single", {"image_mean": [0.5, 0.25, 0.1], "image_std": [0.5, 1, 2], "rescale_factor": 1 / 127.5}),
        ("anyres", {"size": 112, "crop_size": 112}),
        ("anyres", {"size": {"height": 112, "width": 112}, "do_pad": True}),
        ("anyres", {"do_center_crop": False}),
        ("anyres", {"image_mean": None, "image_std": None, "rescale_factor": None, "resample": None}),
    ],
    ids=str,
)
def test_styles_of_config(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    styled = config(kind, 112, PROCESSORS[kind]) | changes
    styled = {key: value for key, value in styled.items() if value is not None}
    pair = Pair(tmp_path, kind, styled)
    for size in ((203, 121), (121, 203), (50, 50)):
        pair.assert_equal(noise(*size))


@pytest.mark.parametrize("kind", ["single", "anyres"])
def test_configs_as_transformers_saves_them(kind: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path / "before", kind, config(kind, 112, PROCESSORS[kind]))
    pair.theirs.save_pretrained(tmp_path / "after")
    saved = json.loads((tmp_path / "after" / "preprocessor_config.json").read_text())
    assert preprocess_rules(saved, kind) == pair.rules
    assert preprocess_rules({"processor_class": "LlavaProcessor", "image_processor": saved}, kind) == pair.rules


def test_missing_keys_mean_the_class_defaults() -> None:
    expected = PreprocessRules(
        image_size=224,
        shortest_edge=224,
        resample=3,
        rescale_factor=1 / 255,
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
    )
    assert preprocess_rules({}, "single") == expected


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("single", {"image_processor_type": "SiglipImageProcessor"}, "SiglipImageProcessor"),
        ("single", {"image_processor_type": "LlavaNextImageProcessor"}, "CLIPImageProcessor"),
        ("anyres", {"image_processor_type": "CLIPImageProcessor"}, "LlavaNextImageProcessor"),
        ("single", {"do_pad": True}, "do_pad = True"),
        ("single", {"do_center_crop": False}, "do_center_crop = False"),
        ("single", {"do_resize": False}, "do_resize = False"),
        ("anyres", {"do_rescale": False}, "do_rescale = False"),
        ("anyres", {"do_normalize": False}, "do_normalize = False"),
        ("single", {"resample": 2}, "resample = 2"),
        ("single", {"resample": "bicubic"}, "resample = 'bicubic'"),
        ("single", {"size": {"shortest_edge": 100}}, "at least the crop_size, 112"),
        ("single", {"size": {"shortest_edge": 100, "longest_edge": 200}}, "longest_edge"),
        ("single", {"size": {"height": 112, "width": 100}}, "equal height and width"),
        ("single", {"size": {"height": 100, "width": 100}}, "112, as crop_size"),
        ("anyres", {"size": {"shortest_edge": 150}}, "112, as crop_size"),
        ("anyres", {"size": "large"}, "size = 'large'"),
        ("anyres", {"size": 0}, "positive integer"),
        ("anyres", {"crop_size": {"height": 112}}, "equal height and width"),
        ("anyres", {"crop_size": 112.0}, "positive integer"),
        ("single", {"image_mean": 0.5}, "three numbers"),
        ("single", {"image_mean": [0.5, 0.5]}, "three numbers"),
        ("single", {"image_mean": [0.5, 0.5, "0.5"]}, "finite number"),
        ("single", {"image_std": [1, 0, 1]}, "three positive numbers"),
        ("single", {"rescale_factor": 0}, "a positive number"),
        ("single", {"rescale_factor": float("nan")}, "finite number"),
        ("single", {"image_processor": [1]}, "an object"),
        (
            "single",
            {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "image_mean": [1e308, 0, 0]},
            "three numbers from 0 to 1, since pictures are padded with it",
        ),
        ("single", {"image_processor_type": "LlavaImageProcessor", "do_pad": "false"}, "do_pad = 'false'"),
    ],
    ids=str,
)
def test_refused_configs(kind: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        preprocess_rules(config(kind, 112, PROCESSORS[kind]) | changes, kind)
    assert words in str(error.value)
    assert str(error.value).isprintable()
