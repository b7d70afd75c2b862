"""Picture sizes, attention maps and features that several tests share. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hired_edge.policies.policy import View
from hired_edge.tiling import Tiling

TABLE = [
    (640, 480),
    (480, 640),
    (1000, 300),
    (672, 672),
    (336, 1008),
    (1008, 336),
    (336, 336),
    (1920, 1080),
    (1024, 899),
    (5000, 20),
    (20, 5000),
]
"""Pictures (width, height) of the algorithm reference's table, for tiles of 336 px."""


def attention(tiling: Tiling, seed: int) -> NDArray[np.float32]:
    """A map (T, N) that is smooth, full of ties, mostly zero or constant, by turns."""
    rng, shape = np.random.default_rng(seed), (tiling.tiles, tiling.rules.patches_per_tile)
    maps = [
        rng.random(shape),
        rng.integers(0, 3, shape),
        np.where(rng.random(shape) < 0.05, 1.0, 0.0),
        np.full(shape, 0.25),
    ]
    return maps[seed % 4].astype(np.float32)


def noise(tiling: Tiling, seed: int, width: int = 24) -> NDArray[np.float32]:
    """Features or keys (T, N, width) that are all different: no two cosines are nearly equal but by rare chance."""
    shape = (tiling.tiles, tiling.rules.patches_per_tile, width)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def distinct(tiling: Tiling, seed: int) -> NDArray[np.float32]:
    """A map (T, N) in which no two values are nearly equal."""
    shape = (tiling.tiles, tiling.rules.patches_per_tile)
    ranks = np.random.default_rng(seed).permutation(tiling.patches).reshape(shape)
    return ((1 + ranks) / 64).astype(np.float32)


def view(tiling: Tiling, seed: int) -> View:
    """A picture as any policy may want to see it, its maps without ties."""
    features, keys = noise(tiling, seed + 2), noise(tiling, seed + 3, 8)
    return View(tiling, distinct(tiling, seed), distinct(tiling, seed + 1), lambda: features.copy(), keys)
