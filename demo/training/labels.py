"""Dense labels: what each 14-px patch of a window shows. -100 is "not asked" (torch's ignore_index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.scenes.compose import COLOURS
from demo.training.architecture import PATCH
from demo.training.pool import Annotation, Boxes

SLOTS = 3
IGNORE = -100
Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Labels:
    """Of one window of N patches. 0 means none, everywhere.

    Args:
        colour: of the card that covers most of a patch, 1 + index, (N,).
        marker: of the marker in it, 1 + index, (N,).
        digits: 1 + the digit in place 0, 1, 2 of a code, (N, SLOTS).
        cards: for the class token: whether a card of each colour is in sight, (COLOURS,).
        codes: the same for the whole code of each colour's card, digits as above, (COLOURS, SLOTS).
    """

    colour: Ints
    marker: Ints
    digits: Ints
    cards: Ints
    codes: Ints


def label(annotation: Annotation, corner: tuple[int, int], size: tuple[int, int], *, legible: bool) -> Labels:
    """Labels of the window whose left top pixel is `corner` (x, y) and that has `size` (rows, columns) patches.

    `legible` is whether codes can be read in it: those of the base picture cannot, and are not asked.
    """
    rows, columns = size
    cards = _overlap(annotation.cards, corner, size)
    patch_area = float(PATCH * PATCH)
    colour = _largest(cards / patch_area, 0.4, annotation.colours)
    marker = _largest(_share(_overlap(annotation.markers, corner, size), annotation.markers), 0.3, annotation.kinds)
    glyphs = _share(_overlap(annotation.glyphs, corner, size), annotation.glyphs)
    digits = np.full((rows * columns, SLOTS), IGNORE)
    codes = np.full((len(COLOURS), SLOTS), IGNORE)
    if legible:
        for slot in range(SLOTS):
            mine = annotation.slots == slot
            digits[:, slot] = _largest(glyphs[mine], 0.3, annotation.digits[mine])
    seen = _share(cards, annotation.cards).sum(axis=1)
    present = np.zeros(len(COLOURS), np.int64)
    present[annotation.colours[seen > 0.1]] = IGNORE
    present[annotation.colours[seen > 0.5]] = 1
    if legible:
        whole = glyphs.sum(axis=1) > 0.8
        for card, chroma in enumerate(annotation.colours):
            mine = annotation.owners == card
            if whole[mine].all():
                codes[chroma] = 0
                codes[chroma, annotation.slots[mine]] = 1 + annotation.digits[mine]
    return Labels(colour, marker, digits, present, codes)


def _overlap(boxes: Boxes, corner: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Pixels of each box in each patch, (boxes, N)."""
    rows, columns = size
    x, y = corner[0] + PATCH * np.arange(columns + 1), corner[1] + PATCH * np.arange(rows + 1)
    wide = np.minimum(boxes[:, 2:3], x[1:]) - np.maximum(boxes[:, 0:1], x[:-1])
    high = np.minimum(boxes[:, 3:4], y[1:]) - np.maximum(boxes[:, 1:2], y[:-1])
    return (np.maximum(high, 0)[:, :, None] * np.maximum(wide, 0)[:, None, :]).reshape(len(boxes), rows * columns)


def _share(overlap: Floats, boxes: Boxes) -> Floats:
    """The same as a share of each box's area."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return overlap / np.maximum(area, 1e-6)[:, None]


def _largest(shares: Floats, least: float, values: Ints) -> Ints:
    """1 + the value of the box with the largest share of each patch; 0 where none has `least`."""
    if not len(shares):
        return np.zeros(shares.shape[1], np.int64)
    best = shares.argmax(axis=0)
    return np.where(shares.max(axis=0) >= least, values[best] + 1, 0)
