"""Scenes as the model sees them: drawn once, cut as the runtime cuts them, kept in files of `CHUNK` scenes.

Kept are the pixels, as plain arrays; what is in a scene follows from its seed and number, and is composed again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from demo.scenes.box import Box
from demo.scenes.compose import COLOURS, MARKERS, Scene, compose
from demo.scenes.draw import encode
from demo.training.architecture import PREPROCESS, TILING
from hired_edge.tiling import Tiling, tile
from hired_runtime.preprocess import base_tile, mosaic

CHUNK = 500
Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Annotation:
    """Boxes in pixels of one view (the mosaic, or the base picture): (n, 4) as left, top, right, bottom.

    Args:
        cards, colours: boxes and indices into COLOURS.
        markers, kinds: boxes and indices into MARKERS.
        glyphs, digits, slots, owners: boxes, digit values, places in the code, and the card's index.
    """

    cards: Boxes
    colours: NDArray[np.int64]
    markers: Boxes
    kinds: NDArray[np.int64]
    glyphs: Boxes
    digits: NDArray[np.int64]
    slots: NDArray[np.int64]
    owners: NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """A picture, uint8 (h, w, 3), and what is in it."""

    pixels: NDArray[np.uint8]
    annotation: Annotation


@dataclass(frozen=True)
class Sample:
    """A scene with its two views."""

    scene: Scene
    tiling: Tiling
    base: View
    mosaic: View


def make_sample(seed: int, number: int) -> Sample:
    """Draws a scene, compresses it, and cuts it as the runtime does."""
    scene = compose(seed, number)
    picture = Image.open(io.BytesIO(encode(scene))).convert("RGB")
    tiling = tile(scene.height, scene.width, TILING)
    return _sample(scene, tiling, base_tile(picture, PREPROCESS), mosaic(picture, tiling, PREPROCESS))


def _sample(scene: Scene, tiling: Tiling, base_pixels: NDArray[np.uint8], mosaic_pixels: NDArray[np.uint8]) -> Sample:
    (height, width), (top, _, left, _), side = tiling.resized, tiling.padding, TILING.image_size
    base = _annotate(scene, (side / scene.width, side / scene.height), (0, 0))
    whole = _annotate(scene, (width / scene.width, height / scene.height), (left, top))
    return Sample(scene, tiling, View(base_pixels, base), View(mosaic_pixels, whole))


def _annotate(scene: Scene, scale: tuple[float, float], offset: tuple[float, float]) -> Annotation:
    def boxes(items: Sequence[Box]) -> Boxes:
        corners = [(box.left, box.top, box.right, box.bottom) for box in items]
        return np.array(corners, np.float32).reshape(-1, 4) * [*scale, *scale] + [*offset, *offset]

    marked = [card for card in scene.cards if card.marker_box is not None]
    glyphs = [
        (box, int(digit), slot, owner)
        for owner, card in enumerate(scene.cards)
        for slot, (box, digit) in enumerate(zip(card.glyphs, card.code, strict=True))
    ]
    return Annotation(
        cards=boxes([card.box for card in scene.cards]),
        colours=np.array([COLOURS.index(card.colour) for card in scene.cards]),
        markers=boxes([card.marker_box for card in marked if card.marker_box is not None]),
        kinds=np.array([MARKERS.index(card.marker) for card in marked if card.marker], np.int64),
        glyphs=boxes([glyph[0] for glyph in glyphs]),
        digits=np.array([glyph[1] for glyph in glyphs]),
        slots=np.array([glyph[2] for glyph in glyphs]),
        owners=np.array([glyph[3] for glyph in glyphs]),
    )


def _write_chunk(path: Path, seed: int, start: int) -> None:
    samples = [make_sample(seed, number) for number in range(start, start + CHUNK)]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, *(pixels for sample in samples for pixels in (sample.base.pixels, sample.mosaic.pixels)))
    partial.replace(path)


def ensure(folder: Path, seed: int, count: int, workers: int = 2) -> None:
    """Draws the chunks of scenes 0 to `count` of series `seed` that `folder` does not hold yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [start for start in range(0, count, CHUNK) if not _path(folder, seed, start).exists()]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            jobs = [pool.submit(_write_chunk, _path(folder, seed, start), seed, start) for start in missing]
            for job in tqdm(jobs, desc="drawing scenes", unit_scale=CHUNK, unit=" scenes"):
                job.result()


def load(folder: Path, seed: int, count: int) -> list[Sample]:
    """The first `count` scenes of series `seed`; `ensure` drew them."""
    samples: list[Sample] = []
    for start in range(0, count, CHUNK):
        with np.load(_path(folder, seed, start), allow_pickle=False) as kept:
            pixels = [kept[f"arr_{index}"] for index in range(2 * CHUNK)]
        for number in range(start, start + CHUNK):
            scene = compose(seed, number)
            views = pixels[2 * (number - start)], pixels[2 * (number - start) + 1]
            samples.append(_sample(scene, tile(scene.height, scene.width, TILING), *views))
    return samples[:count]


def _path(folder: Path, seed: int, start: int) -> Path:
    return folder / f"scenes-{seed}-{start:06d}.npz"
