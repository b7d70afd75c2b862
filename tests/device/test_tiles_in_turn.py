"""On the CPU a picture's tiles go through the tower in turn: the same features and maps, each where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hired_runtime
from hired_edge.plan import TILES_AT_ONCE
from hired_runtime.ort import OrtVision

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle"


def vision(images: int = 1) -> OrtVision:
    engine = hired_runtime.open(GOLDEN, images=images).pipeline.backend.vision
    assert isinstance(engine, OrtVision)
    return engine


def tiles(engine: OrtVision, count: int, seed: int) -> Any:
    (shape,) = [node.shape for node in engine._session.get_inputs()]
    return np.random.default_rng(seed).standard_normal((count, *shape[1:]), np.float32)


def runs(engine: OrtVision, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tiles of each run of the graph from now on."""
    seen: list[int] = []
    run = engine._run

    def counted(pixel_values: Any, *rest: Any) -> None:
        seen.append(len(pixel_values))
        run(pixel_values, *rest)

    monkeypatch.setattr(engine, "_run", counted)
    return seen


@pytest.mark.parametrize("chunk", [TILES_AT_ONCE, 2, 3, 64])
def test_tiles_in_turn_are_the_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = vision()
    assert engine.chunk == TILES_AT_ONCE
    most = engine._features.shape[1]
    pixel_values = tiles(engine, most, 5)
    names = ["image_features", "allocation_attention", "selection_attention"]
    features, *maps = map(np.asarray, engine._session.run(names, {"pixel_values": pixel_values}))
    engine.chunk = chunk
    seen = runs(engine, monkeypatch)
    got = engine.encode(pixel_values)
    assert sum(seen) == most
    assert max(seen) == min(chunk, most)
    np.testing.assert_allclose(got.allocation, maps[0], rtol=0, atol=1e-5 * np.abs(maps[0]).max())
    np.testing.assert_allclose(got.selection, maps[1], rtol=0, atol=1e-5 * np.abs(maps[1]).max())
    flat = features.reshape(-1, features.shape[-1])
    rows = np.random.default_rng(6).permutation(len(flat))
    np.testing.assert_allclose(engine.gather(rows), flat[rows], rtol=0, atol=1e-4 * np.abs(flat).max())


def test_pictures_keep_to_their_slots() -> None:
    """A shorter picture in the second slot leaves the first one's features as they are."""
    engine = vision(images=2)
    long, short = tiles(engine, engine._features.shape[1], 7), tiles(engine, 1, 8)
    engine.encode(long)
    rows = np.arange(engine._features.shape[1] * engine._features.shape[2])
    before = engine.gather(rows)
    first = engine.encode(short, slot=1)
    np.testing.assert_array_equal(engine.gather(rows), before)
    patches = engine._features.shape[2]
    second = engine.gather(np.arange(patches), slot=1)
    assert first.allocation.shape == (1, patches)
    alone = vision()
    again = alone.encode(short)
    np.testing.assert_array_equal(again.selection, first.selection)
    np.testing.assert_array_equal(alone.gather(np.arange(patches)), second)
