"""Where a picture's patches lie on the panels that it is shown in: the base picture, and the mosaic of its tiles.

`drawing` paints these panels with numpy, the page of `hired-edge serve` on a canvas, both from the numbers given here.
Knows no pixel and no selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import Tiling, TilingRules

Box: TypeAlias = tuple[float, float, float, float]
Colour: TypeAlias = tuple[int, int, int]

# Pixels. A small picture is enlarged until its patches can be told apart, a sliver is widened.
LONG_SIDE_MIN, LONG_SIDE_MAX, SHORT_SIDE_MIN = 560, 880, 136
_ASPECT_MAX = 3


@dataclass(frozen=True)
class Axis:
    """One axis of a panel and the row of tiles along it.

    Args:
        start, length: where the row begins and how long it is, as shares of the axis; padding reaches beyond 0 and 1.
        tiles: in the row.
        rules: the tiles'.
    """

    start: float
    length: float
    tiles: int
    rules: TilingRules

    def patch_of_pixel(self, pixels: int) -> NDArray[np.int64]:
        """The patch under each of the axis' pixels, (pixels,); -1 where there is none."""
        tile_px, side = self.rules.image_size, self.rules.patches_per_side
        share = ((np.arange(pixels) + 0.5) / pixels - self.start) / self.length
        position = np.floor(share * self.tiles * tile_px).astype(np.int64)
        tile, patch = position // tile_px, position % tile_px // self.rules.patch_size
        # A tile's last pixels belong to no patch where the patch size does not divide it.
        return np.where((tile >= 0) & (tile < self.tiles) & (patch < side), tile * side + patch, -1)

    def edges(self) -> NDArray[np.float64]:
        """Where each patch begins and ends, as shares of the axis, (patches, 2)."""
        tile, patch = np.divmod(np.arange(self.tiles * self.rules.patches_per_side), self.rules.patches_per_side)
        first = tile * self.rules.image_size + patch * self.rules.patch_size
        ends = np.stack([first, first + self.rules.patch_size], axis=1)
        return self.start + self.length * ends / (self.tiles * self.rules.image_size)


class Part(NamedTuple):
    """A partition on a panel: its number, what to call it, and its outline, (left, top, right, bottom) px."""

    partition: int
    name: str
    box: Box


@dataclass(frozen=True, eq=False)
class Layout:
    """A panel without its pixels.

    Args:
        name: its heading.
        rows, columns: its patches.
        index: flat index p * N + j of every patch, (rows, columns).
        parts: the partitions on it.
    """

    name: str
    rows: Axis
    columns: Axis
    index: NDArray[np.int64]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Panels:
    """Panels of one size and the part of the picture that each of them shows.

    Args:
        width, height: of a panel, px: the frame's aspect, unless it is a sliver.
        frame: what is shown, (left, top, right, bottom) px of the picture; beyond it lies `padding`.
        padding: red, green and blue; None where the frame lies within the picture.
        layouts: one, or two for a picture with tiles.
    """

    width: int
    height: int
    frame: tuple[int, int, int, int]
    padding: Colour | None
    layouts: tuple[Layout, ...]


def panels(tiling: Tiling, rules: PreprocessRules | None = None) -> Panels:
    """The panels that show a picture.

    Args:
        tiling: the picture, cut.
        rules: the preprocessing, for a single partition: it says which part of the picture was seen. Without it, the
            centred square.
    """
    squashed = tiling.rules.geometry.canvases if rules is None else rules.shortest_edge is None
    padding = None if rules is None else rules.pad_colour
    squashed = squashed and padding is None
    seen = 1.0 if rules is None or rules.shortest_edge is None else rules.image_size / rules.shortest_edge
    frame = _frame(tiling.width, tiling.height, whole=squashed, padded=padding is not None)
    width, height = _size(frame[2] - frame[0], frame[3] - frame[1])
    layouts = [_base(tiling, width, height, None if squashed else seen)]
    if tiling.tiles > 1:
        layouts.append(_mosaic(tiling, width, height))
    return Panels(width, height, frame, padding, tuple(layouts))


def _frame(width: int, height: int, *, whole: bool, padded: bool) -> tuple[int, int, int, int]:
    """The whole picture; or padded to a square; or cut to an aspect in which a centred square can be seen."""
    if padded:
        side = max(width, height)
        left, top = -((side - width) // 2), -((side - height) // 2)
        return left, top, left + side, top + side
    longest = max(width, height) if whole else _ASPECT_MAX * min(width, height)
    shown_width, shown_height = min(width, longest), min(height, longest)
    left, top = (width - shown_width) // 2, (height - shown_height) // 2
    return left, top, left + shown_width, top + shown_height


def _size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of a panel for a frame of that size."""
    scale = min(max(max(width, height), LONG_SIDE_MIN), LONG_SIDE_MAX) / max(width, height)
    return max(round(width * scale), SHORT_SIDE_MIN), max(round(height * scale), SHORT_SIDE_MIN)


def _base(tiling: Tiling, width: int, height: int, seen: float | None) -> Layout:
    """`seen`: the side of the centred square that is seen, as a share of the shorter side; None: all, squashed."""
    square = seen and seen * min(width, height)
    share_y, share_x = (square / height, square / width) if square else (1.0, 1.0)
    inset_y, inset_x = (1 - share_y) / 2 * height, (1 - share_x) / 2 * width
    side = tiling.rules.patches_per_side
    return Layout(
        name="base",
        rows=Axis((1 - share_y) / 2, share_y, 1, tiling.rules),
        columns=Axis((1 - share_x) / 2, share_x, 1, tiling.rules),
        index=np.arange(side * side).reshape(side, side),
        parts=(Part(0, "base", (inset_x, inset_y, width - inset_x, height - inset_y)),),
    )


def _mosaic(tiling: Tiling, width: int, height: int) -> Layout:
    (fit_h, fit_w), (top, _, left, _), (grid_h, grid_w) = tiling.resized, tiling.padding, tiling.grid
    side = tiling.rules.image_size
    down = np.clip((side * np.arange(grid_h + 1) - top) * height / fit_h, 0, height).tolist()
    across = np.clip((side * np.arange(grid_w + 1) - left) * width / fit_w, 0, width).tolist()
    parts = tuple(
        Part(1 + row * grid_w + column, f"tile {1 + row * grid_w + column}", box)
        for row in range(grid_h)
        for column in range(grid_w)
        for box in [(across[column], down[row], across[column + 1], down[row + 1])]
    )
    return Layout(
        name=f"{grid_h}x{grid_w} tiles",
        rows=Axis(-top / fit_h, tiling.canvas[0] / fit_h, grid_h, tiling.rules),
        columns=Axis(-left / fit_w, tiling.canvas[1] / fit_w, grid_w, tiling.rules),
        index=tiling.mosaic_index,
        parts=parts,
    )
