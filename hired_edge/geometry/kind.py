"""What a way of cutting pictures has to say: where its tiles lie, and in which order their tokens are packed.

Knows sizes only; `hired_edge.tiling` makes a `Tiling` of it. Shapes as there: T tiles (base first), N patches a tile,
R x C cells of the mosaic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

NEWLINE = -1
"""What stands for `image_newline` in an order of patches."""

Ints: TypeAlias = NDArray[np.int64]
Canvases: TypeAlias = tuple[tuple[int, int], ...]


class Tile(NamedTuple):
    """Sides of a tile: in px, and in patches."""

    px: int
    patches: int


class Cut(NamedTuple):
    """Where the tiles of one picture lie: the fields of the same names of `hired_edge.tiling.Tiling`."""

    grid: tuple[int, int]
    canvas: tuple[int, int]
    resized: tuple[int, int]
    padding: tuple[int, int, int, int]
    window: tuple[int, int, int, int]


BASE_ALONE = Cut((0, 0), (0, 0), (0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
"""Of a picture without tiles."""


@dataclass(frozen=True)
class Kind:
    """One way of cutting pictures.

    Args:
        cut: a picture's height and width (px), the tile and the canvases to choose from -> where its tiles lie.
        order: all patches p * N + j, (T, N), and those of the mosaic that are no padding, (R, C) -> the order in which
            `transformers` packs them, `NEWLINE` where an `image_newline` goes.
        canvases: whether there are canvases to choose from.
        newlines: whether each of the R rows ends in an `image_newline`.
        single_tile: whether a canvas of one tile has that tile beside the base picture; False: it is the base picture.
    """

    cut: Callable[[int, int, Tile, Canvases], Cut]
    order: Callable[[Ints, Ints], Ints]
    canvases: bool
    newlines: bool
    single_tile: bool = True

    def tiles(self, grid: tuple[int, int]) -> int:
        """T of a canvas of so many tiles down and across, the base picture included."""
        count = grid[0] * grid[1]
        return 1 + (count if count > 1 or self.single_tile else 0)


def base_first(patches: Ints, window: Ints) -> Ints:
    """An order: the base picture, then the mosaic, whose rows run across tiles and end in a newline each."""
    newlines = np.full((len(window), 1), NEWLINE, np.int64)
    return np.concatenate([patches[0], np.concatenate([window, newlines], axis=1).reshape(-1)])


def tiles_first(patches: Ints, window: Ints) -> Ints:
    """An order: one tile after another, then the base picture."""
    return np.concatenate([patches[1:].reshape(-1), patches[0]])
