"""The picture of what was kept: kept tokens clear, dropped ones dark and grey, with every partition's count.

One panel shows the base partition; for tiled pictures a second one shows the mosaic of tiles, without its padding. Both
show the picture at its own aspect, since that is how a person knows it. Where everything lies on them is `panels`' to
say. Knows nothing of models, budgets or policies.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hired_edge.errors import InputError
from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import Tiling
from hired_runtime.panels import LONG_SIDE_MAX, Box, Colour, Layout, panels
from hired_runtime.whole import whole

Indices: TypeAlias = "Sequence[Sequence[int] | NDArray[np.integer]]"

_MARGIN, _HEADING_SIZE, _LABEL_SIZE = 24, 20, 15  # px

_BACKGROUND, _TEXT, _FAINT, _LABEL_GROUND = (20, 22, 27), (236, 238, 242), (152, 158, 170), (20, 22, 27, 210)
_LINE, _LINE_SHADOW = (255, 255, 255, 190), (0, 0, 0, 120)

# What is left of a dropped patch's brightness and of its colour, and of the brightness where no patch lies;
# how white an outline is.
_DROPPED, _COLOUR, _UNSEEN, _OUTLINE = 0.32, 0.25, 0.12, 0.5


@dataclass(frozen=True)
class Panel:
    """One panel before it is labelled.

    Args:
        name: its heading.
        image: RGB, what was dropped is dark.
        kept, eligible: tokens.
        parts: what to outline, (left, top, right, bottom) px each with its label.
    """

    name: str
    image: Image.Image
    kept: int
    eligible: int
    parts: tuple[tuple[str, Box], ...]


def draw_kept(
    picture: Image.Image,
    tiling: Tiling,
    indices: Indices,
    path: str | os.PathLike[str] | None = None,
    *,
    rules: PreprocessRules | None = None,
) -> Image.Image:
    """Draw the kept tokens over the picture.

    Args:
        picture: RGB, upright, of the size that `tiling` was made for.
        tiling: where the tiles lie.
        indices: kept patches of each partition, base first, as raster indices 0 .. N-1.
        path: a file to write too; its ending says the format.
        rules: the preprocessing, for a single partition: it says which part of the picture was seen. Without it, the
            centred square.

    Returns:
        RGB. No panel is longer than 880 px.

    Raises:
        InputError: the file cannot be written.
    """
    drawn = _compose(kept_panels(picture, tiling, indices, rules=rules), tiling)
    if path is not None:
        _save(drawn, Path(path))
    return drawn


def _save(drawn: Image.Image, path: Path) -> None:
    """Raises InputError where it cannot be written; what is there then stays."""
    picture_format = Image.registered_extensions().get(path.suffix.lower())
    try:
        if picture_format not in Image.SAVE:  # some formats can only be read
            raise ValueError(f"no format for the ending {path.suffix!r}")
        with whole(path) as partial:
            drawn.save(partial, picture_format)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be written ({getattr(error, 'strerror', None) or error})",
            expected="a writable path that ends in .png",
            fix="pass another path",
        ) from None


def kept_panels(
    picture: Image.Image, tiling: Tiling, indices: Indices, *, rules: PreprocessRules | None = None
) -> list[Panel]:
    """The panels of `draw_kept` without lines and labels: kept pixels are those of the resized picture, untouched."""
    assert len(indices) == tiling.tiles, (len(indices), tiling.tiles)
    kept = np.zeros(tiling.eligible.shape, np.bool_)
    for partition, patches in enumerate(indices):
        kept[partition, np.asarray(patches, np.int64)] = True
    plan = panels(tiling, rules)
    shown = picture.crop(plan.frame) if plan.padding is None else _squared(picture, plan.padding)
    resized = shown.resize((plan.width, plan.height), Image.Resampling.BICUBIC)
    return [_painted(resized, layout, kept, tiling.eligible) for layout in plan.layouts]


def _painted(resized: Image.Image, layout: Layout, kept: NDArray[np.bool_], eligible: NDArray[np.bool_]) -> Panel:
    """A panel: `kept` and `eligible` are of all patches, (T, N)."""
    rows, columns = layout.rows.patch_of_pixel(resized.height), layout.columns.patch_of_pixel(resized.width)
    image = _dim_dropped(resized, kept.reshape(-1)[layout.index], rows, columns)
    counts, possible = kept.sum(axis=1), eligible.sum(axis=1)
    here = [part.partition for part in layout.parts]
    parts = tuple(
        ("" if part.partition == 0 else f"{part.name}  {counts[part.partition]}/{possible[part.partition]}", part.box)
        for part in layout.parts
    )
    return Panel(layout.name, image, int(counts[here].sum()), int(possible[here].sum()), parts)


def _squared(picture: Image.Image, colour: Colour) -> Image.Image:
    """The picture padded to a square, as the vision tower sees it, and no larger than a panel."""
    scale = min(1.0, LONG_SIDE_MAX / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    side = max(width, height)
    square = Image.new("RGB", (side, side), colour)
    square.paste(picture.resize((width, height), Image.Resampling.BICUBIC), ((side - width) // 2, (side - height) // 2))
    return square


def _dim_dropped(
    image: Image.Image, kept: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Image.Image:
    """Darken and grey the pixels whose patch was not kept.

    Args:
        image: RGB.
        kept: of the panel's patches, (rows of patches, columns of patches).
        rows, columns: the patch under each pixel, or -1.
    """
    clear = np.pad(kept, (0, 1))[np.ix_(rows, columns)]  # index -1 finds the padding: never kept
    colour = np.asarray(image).astype(np.float32)
    grey = np.asarray(image.convert("L")).astype(np.float32)[..., None]
    brightness = np.where((rows[:, None] < 0) | (columns < 0), _UNSEEN, _DROPPED)[..., None]
    dropped = brightness * (_COLOUR * colour + (1 - _COLOUR) * grey)
    dropped = np.where(_beside(clear)[..., None], (1 - _OUTLINE) * dropped + _OUTLINE * 255, dropped)
    return Image.fromarray(np.where(clear[..., None], colour, dropped).astype(np.uint8))


def _beside(clear: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels next to a clear one: an outline, without which a kept dark patch would look dropped."""
    wide = np.pad(clear, 1)
    return wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]


def _compose(panels: list[Panel], tiling: Tiling) -> Image.Image:
    """The panels side by side (wide ones below each other) with headings, lines, labels and a caption."""
    heading, label = ImageFont.load_default(_HEADING_SIZE), ImageFont.load_default(_LABEL_SIZE)
    caption = _caption(panels, tiling)
    head = round(_HEADING_SIZE * 1.9)
    width, height = panels[0].image.size
    stacked = width > 2 * height
    step_x, step_y = (0, height + head + _MARGIN // 2) if stacked else (width + _MARGIN, 0)
    inner = max(width + step_x * (len(panels) - 1), round(heading.getlength(caption)))
    bottom = _MARGIN // 2 + step_y * (len(panels) - 1) + head + height
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, bottom + head + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet, "RGBA")
    for number, panel in enumerate(panels):
        x, y = _MARGIN + step_x * number, _MARGIN // 2 + head + step_y * number
        sheet.paste(panel.image, (x, y))
        draw.text((x, y - head / 2), panel.name, _TEXT, heading, anchor="lm")
        count = f"{panel.kept}/{panel.eligible}"
        draw.text((x + heading.getlength(panel.name) + 14, y - head / 2), count, _FAINT, heading, anchor="lm")
        for text, box in panel.parts:
            _draw_part(draw, text, (box[0] + x, box[1] + y, box[2] + x, box[3] + y), label)
    draw.text((_MARGIN, bottom + (head + _MARGIN) / 2), caption, _TEXT, heading, anchor="lm")
    return sheet


def _draw_part(
    draw: ImageDraw.ImageDraw, text: str, box: Box, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    """An outline, and a label in its top left corner."""
    left, top, right, bottom = (round(edge) for edge in box)
    if right - left < 2 or bottom - top < 2:
        return
    draw.rectangle((left, top, right - 1, bottom - 1), outline=_LINE_SHADOW)
    draw.rectangle((left, top, right, bottom), outline=_LINE)
    width, height = draw.textlength(text, font), _LABEL_SIZE + 8
    if text and width + 20 <= right - left and height + 8 <= bottom - top:
        draw.rounded_rectangle((left + 6, top + 6, left + width + 18, top + 6 + height), 5, fill=_LABEL_GROUND)
        draw.text((left + 12, top + 6 + height / 2), text, _TEXT, font, anchor="lm")


def _caption(panels: list[Panel], tiling: Tiling) -> str:
    kept, eligible = sum(panel.kept for panel in panels), sum(panel.eligible for panel in panels)
    of_patches = f", {kept / tiling.patches:.1%} of {tiling.patches} patches" if eligible < tiling.patches else ""
    return f"kept {kept} tokens: {kept / eligible:.1%} of {eligible} eligible{of_patches}"
