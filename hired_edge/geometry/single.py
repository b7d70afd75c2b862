"""One crop and no tiles (LLaVA-1.5, ShareGPT4V; any family's base picture alone)."""

from __future__ import annotations

from hired_edge.geometry.kind import BASE_ALONE, Canvases, Cut, Kind, Tile, base_first


def cut(height: int, width: int, tile: Tile, canvases: Canvases) -> Cut:
    """See `Kind.cut`."""
    return BASE_ALONE


SINGLE = Kind(cut, base_first, canvases=False, newlines=False)
