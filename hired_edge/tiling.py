"""Where a picture's patches come from: its tiles, its padding, and what each patch of the base picture covers.

What differs between families (where tiles lie, the order of their tokens) is `hired_edge.geometry`'s, a file a way of
cutting; each follows `transformers` number for number. Knows sizes only: it never sees a pixel, an attention map or a
budget.

Shapes: T tiles (base first), N patches a tile, R x C cells of the mosaic that survive `unpad`. A patch here is what one
visual token stands for: where a family merges blocks of its tower's patches before it projects them, such a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import CheckpointError, InputError
from hired_edge.geometry import KINDS, Kind, Tile


@dataclass(frozen=True)
class TilingRules:
    """How a model family cuts a picture.

    Args:
        kind: a name in `hired_edge.geometry.KINDS`: "single" (one crop, no mosaic), "anyres" (a squashed base picture
            and a padded grid of tiles), "dynamic" (the same, stretched, the base picture packed last).
        image_size: side of a tile, px.
        patch_size: side of what one visual token stands for, px; a side holds image_size // patch_size of them, as in
            CLIP's convolution.
        pinpoints: the canvases to choose from, (height, width) px, multiples of image_size; empty for "single".

    Raises:
        CheckpointError: rules that no picture could be cut by.
    """

    kind: str
    image_size: int
    patch_size: int
    pinpoints: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        fix = "check image_size, patch_size and image_grid_pinpoints in the checkpoint's config.json"
        if self.kind not in KINDS:
            raise CheckpointError(f"tiling kind {self.kind!r}", expected=" or ".join(KINDS), fix=fix)
        if not 0 < self.patch_size <= self.image_size:
            got = f"patches of {self.patch_size} px in tiles of {self.image_size} px"
            raise CheckpointError(got, expected="0 < patch_size <= image_size", fix=fix)
        if self.geometry.canvases != bool(self.pinpoints):
            got = f"{len(self.pinpoints)} grid pinpoints for tiling kind {self.kind!r}"
            expected = "at least one" if self.geometry.canvases else "none"
            raise CheckpointError(got, expected=f'{expected} for "{self.kind}"', fix=fix)
        for height, width in self.pinpoints:
            if min(height, width) <= 0 or height % self.image_size or width % self.image_size:
                expected = f"positive multiples of the tile's {self.image_size} px"
                raise CheckpointError(f"grid pinpoint ({height}, {width})", expected=expected, fix=fix)

    @property
    def geometry(self) -> Kind:
        """What the kind says."""
        return KINDS[self.kind]

    @property
    def base_picture(self) -> TilingRules:
        """The rules of a picture without its sub-images: one tile, no mosaic."""
        return TilingRules("single", self.image_size, self.patch_size)

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size

    @property
    def patches_per_tile(self) -> int:
        """N, the patches of one tile."""
        return self.patches_per_side**2

    @property
    def max_tiles(self) -> int:
        """The largest T of any picture, base included."""
        return max((self.geometry.tiles(self.grid(canvas)) for canvas in self.pinpoints), default=1)

    @property
    def max_stock_tokens(self) -> int:
        """The longest stock sequence of any picture, newlines included: what an export for 100 % is sized by."""
        return max(map(self._stock_tokens, self.pinpoints), default=self.patches_per_tile)

    def _stock_tokens(self, canvas: tuple[int, int]) -> int:
        """Of a picture that fills the canvas."""
        grid = self.grid(canvas)
        newlines = self.patches_per_side * grid[0] if self.geometry.newlines else 0
        return self.geometry.tiles(grid) * self.patches_per_tile + newlines

    def grid(self, canvas: tuple[int, int]) -> tuple[int, int]:
        """Tiles down and across a canvas of (height, width) px."""
        return canvas[0] // self.image_size, canvas[1] // self.image_size


@dataclass(frozen=True)
class Tiling:
    """One picture, cut. Made by `tile`; everything about the mosaic is zero where there is only the base picture.

    Args:
        rules: the rules that cut it.
        height, width: the picture, px.
        grid: (gh, gw), tiles down and across.
        canvas: (height, width) px, the chosen pinpoint.
        resized: (height, width) px of the picture inside the canvas.
        padding: (top, bottom, left, right) px around it.
        window: (row0, row1, column0, column1), half-open: the mosaic cells that survive `unpad`.
    """

    rules: TilingRules
    height: int
    width: int
    grid: tuple[int, int]
    canvas: tuple[int, int]
    resized: tuple[int, int]
    padding: tuple[int, int, int, int]
    window: tuple[int, int, int, int]

    @property
    def tiles(self) -> int:
        """T, the base picture included."""
        return 1 + self.grid[0] * self.grid[1]

    @property
    def patches(self) -> int:
        """T * N: every patch that the vision tower computes, padding included. What a percentage is of."""
        return self.tiles * self.rules.patches_per_tile

    @property
    def rows(self) -> int:
        """R, the mosaic rows that survive `unpad`."""
        return self.window[1] - self.window[0]

    @property
    def newlines(self) -> int:
        """How many of them end in an `image_newline` in the stock sequence: all or none."""
        return self.rows if self.rules.geometry.newlines else 0

    @property
    def columns(self) -> int:
        """C, the mosaic columns that survive `unpad`."""
        return self.window[3] - self.window[2]

    @property
    def eligible_tokens(self) -> int:
        """How many patches can be kept: the base picture's and the window's."""
        return self.rules.patches_per_tile + self.rows * self.columns

    @property
    def stock_tokens(self) -> int:
        """Length of the stock sequence, newlines included: N + R*C, and R where rows end in one."""
        return self.eligible_tokens + self.newlines

    @property
    def base_picture(self) -> Tiling:
        """The same picture without its sub-images."""
        return tile(self.height, self.width, self.rules.base_picture)

    @cached_property
    def mosaic_index(self) -> NDArray[np.int64]:
        """Flat patch index p*N + j of every mosaic cell, (gh*side, gw*side), padding included."""
        (grid_h, grid_w), side = self.grid, self.rules.patches_per_side
        index = np.arange(self.patches, dtype=np.int64)[self.rules.patches_per_tile :]
        index = index.reshape(grid_h, grid_w, side, side).transpose(0, 2, 1, 3)
        return _frozen(index.reshape(grid_h * side, grid_w * side))

    @cached_property
    def window_index(self) -> NDArray[np.int64]:
        """Flat patch index p*N + j of the mosaic cells that survive `unpad`, (R, C)."""
        row0, row1, column0, column1 = self.window
        return self.mosaic_index[row0:row1, column0:column1]

    @cached_property
    def stock_order(self) -> NDArray[np.int64]:
        """Flat patch index p*N + j of everything that `transformers` packs, in its order, (stock_tokens,).

        `hired_edge.geometry.NEWLINE` stands for an `image_newline`.
        """
        patches = np.arange(self.patches, dtype=np.int64).reshape(self.tiles, -1)
        return _frozen(self.rules.geometry.order(patches, self.window_index))

    @cached_property
    def eligible(self) -> NDArray[np.bool_]:
        """Which patches may be kept, (T, N): all of the base picture's, and the window's."""
        eligible = np.zeros(self.patches, dtype=np.bool_)
        eligible[: self.rules.patches_per_tile] = True
        eligible[self.window_index] = True
        return _frozen(eligible.reshape(self.tiles, -1))

    @cached_property
    def coverage(self) -> NDArray[np.float64]:
        """Share of base patch j that lies in sub-image i, by area, (T-1, N); every column sums to 1.

        T_i of the paper's Eq. 1. The base picture is squashed while the mosaic is padded, so the edge between tiles
        i-1 and i is at base column side * (image_size*i - pad_left) / resized width: fractional at three-way splits.
        """
        side, tile_px = self.rules.patches_per_side, self.rules.image_size
        top, _, left, _ = self.padding
        rows = _shares(self.grid[0], side, tile_px, top, self.resized[0])
        columns = _shares(self.grid[1], side, tile_px, left, self.resized[1])
        return _frozen(np.einsum("ir,jc->ijrc", rows, columns).reshape(self.tiles - 1, self.rules.patches_per_tile))


def tile(height: int, width: int, rules: TilingRules) -> Tiling:
    """Cut a picture of height x width px (after EXIF rotation) as `transformers` would.

    Raises:
        InputError: a side that is not positive.
    """
    if height <= 0 or width <= 0:
        got = f"a picture of {width} x {height} px (width x height)"
        raise InputError(got, expected="at least 1 x 1 px", fix="pass another picture")
    sides = Tile(rules.image_size, rules.patches_per_side)
    return Tiling(rules, height, width, *rules.geometry.cut(height, width, sides, rules.pinpoints))


def _shares(tiles: int, side: int, tile_px: int, pad_px: int, resized_px: int) -> NDArray[np.float64]:
    """Share of each base row (or column) that lies in each row (or column) of tiles, (tiles, side)."""
    if tiles == 0:
        return np.zeros((0, side))
    edges = np.clip(side * (tile_px * np.arange(tiles + 1) - pad_px) / resized_px, 0.0, side)
    cells = np.arange(side)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.maximum(overlap, 0.0)


def _frozen(array: NDArray) -> NDArray:
    """The array, read-only: a Tiling is shared and never changes."""
    array.flags.writeable = False
    return array
