"""InternVL's dynamic resolution: the picture is stretched to the grid of tiles whose aspect is nearest, unpadded.

The base picture is what InternVL calls the thumbnail: the whole picture in one tile. It is packed behind the tiles, and
a picture of one tile has no other. Follows the processor of `transformers` (GotOcr2ImageProcessorPil), floats included.
"""

from __future__ import annotations

from hired_edge.geometry.kind import BASE_ALONE, Canvases, Cut, Kind, Tile, tiles_first


def cut(height: int, width: int, tile: Tile, canvases: Canvases) -> Cut:
    """See `Kind.cut`."""
    canvas = _nearest_aspect(height, width, canvases)
    grid = (canvas[0] // tile.px, canvas[1] // tile.px)
    if grid == (1, 1):
        return BASE_ALONE
    return Cut(grid, canvas, canvas, (0, 0, 0, 0), (0, grid[0] * tile.patches, 0, grid[1] * tile.patches))


def _nearest_aspect(height: int, width: int, canvases: Canvases) -> tuple[int, int]:
    """Of equal aspects the later one, unless it has twice the picture's pixels and more."""
    aspect, nearest, best = width / height, float("inf"), canvases[0]
    for canvas in canvases:
        distance = abs(aspect - canvas[1] / canvas[0])
        larger = distance == nearest and width * height > 0.5 * canvas[0] * canvas[1]
        if distance < nearest or larger:
            nearest, best = distance, canvas
    return best


def canvases(side: int, fewest: int, most: int) -> Canvases:
    """Every grid of `fewest` to `most` tiles of `side` px, (height, width) px, in the processor's order."""
    grids = [(rows, columns) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    grids = sorted((grid for grid in grids if grid[0] * grid[1] >= fewest), key=lambda grid: grid[0] * grid[1])
    return tuple((rows * side, columns * side) for rows, columns in grids)


DYNAMIC = Kind(cut, tiles_first, canvases=True, newlines=False, single_tile=False)
