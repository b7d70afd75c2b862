"""LLaVA-NeXT's "anyres": the picture is fitted into one of a few canvases and padded, and its padding is cut off again.

Follows `transformers` number for number, float arithmetic included.
"""

from __future__ import annotations

import math

from hired_edge.geometry.kind import Canvases, Cut, Kind, Tile, base_first


def cut(height: int, width: int, tile: Tile, canvases: Canvases) -> Cut:
    """See `Kind.cut`."""
    canvas = _best_canvas(height, width, canvases)
    grid, resized = (canvas[0] // tile.px, canvas[1] // tile.px), _fit(height, width, canvas)
    top, left = (canvas[0] - resized[0]) // 2, (canvas[1] - resized[1]) // 2
    padding = (top, canvas[0] - resized[0] - top, left, canvas[1] - resized[1] - left)
    cells = grid[0] * tile.patches, grid[1] * tile.patches
    return Cut(grid, canvas, resized, padding, _unpad(height, width, *cells))


def _best_canvas(height: int, width: int, canvases: Canvases) -> tuple[int, int]:
    """The canvas that keeps most of the picture's pixels, then wastes least of its own; the first wins a tie."""

    def merit(canvas: tuple[int, int]) -> tuple[int, int]:
        scale = min(canvas[1] / width, canvas[0] / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        return effective, effective - canvas[0] * canvas[1]

    return max(canvases, key=merit)


def _fit(height: int, width: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """Size of the picture scaled to fit a canvas, (height, width) px."""
    scale_h, scale_w = canvas[0] / height, canvas[1] / width
    if scale_w < scale_h:
        return min(math.ceil(height * scale_w), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(width * scale_h), canvas[1])


def _unpad(height: int, width: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    """The mosaic cells that are not padding: (row0, row1, column0, column1). Very long pictures have none."""
    if width / height > columns / rows:
        inset = (rows - int(round(height * (columns / width), 7))) // 2
        return inset, rows - inset, 0, columns
    inset = (columns - int(round(width * (rows / height), 7))) // 2
    return 0, rows, inset, columns - inset


ANYRES = Kind(cut, base_first, canvases=True, newlines=True)
