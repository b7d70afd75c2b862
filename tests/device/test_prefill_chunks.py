"""A long prompt on the CPU goes in chunks, a row at a time: its answer is that of one run, and no run is longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hired_runtime
from hired_edge.plan import PREFILL_CHUNK
from hired_runtime.ort import OrtLanguage

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = {"bundle": 1e-5, "bundle-int4": 0.05}
"""Of the largest logit: sums in another order; int4's products round their activations, and carry that on."""


def language(name: str, batch: int = 1) -> OrtLanguage:
    engine = hired_runtime.open(GOLDEN / name, batch=batch).pipeline.backend.language
    assert isinstance(engine, OrtLanguage)
    return engine


def runs(engine: OrtLanguage, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, tokens) of each run of the graph from now on."""
    seen: list[tuple[int, int]] = []
    run = engine._run

    def counted(rows: slice, embeds: Any, *rest: Any) -> None:
        seen.append(embeds.shape[:2])
        run(rows, embeds, *rest)

    monkeypatch.setattr(engine, "_run", counted)
    return seen


def noise(rows: int, tokens: int, width: int) -> Any:
    return 0.7 * np.random.default_rng(3).standard_normal((rows, tokens, width), np.float32)


@pytest.mark.parametrize("name", list(TOLERANCE))
@pytest.mark.parametrize("chunk", [1, 7, 24, 49])
def test_chunks_are_the_whole(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = language(name)
    prompt = noise(1, 50, engine._text.hidden_size)
    engine.chunk = None
    whole = engine.step(prompt, np.array([0]), np.array([49])).copy()
    cache = [array.copy() for array in engine.cache.arrays]  # type: ignore[union-attr]
    engine.reset()
    engine.chunk = chunk
    seen = runs(engine, monkeypatch)
    again = engine.step(prompt, np.array([0]), np.array([49]))
    assert sum(tokens for _, tokens in seen) == 50
    assert max(tokens for _, tokens in seen) <= chunk
    assert np.abs(again - whole).max() <= TOLERANCE[name] * np.abs(whole).max()
    for got, expected in zip(engine.cache.arrays, cache, strict=True):  # type: ignore[union-attr]
        assert np.abs(got - expected).max() <= TOLERANCE[name] * np.abs(expected).max()


def test_rows_of_different_lengths_go_one_by_one_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.array([30, 17])
    engine, alone = language("bundle", batch=2), language("bundle")
    prompts = noise(2, 30, engine._text.hidden_size)
    for row, length in enumerate(lengths):
        prompts[row, length:] = 0
    engine.chunk, alone.chunk = 16, None
    seen = runs(engine, monkeypatch)
    logits = engine.step(prompts, np.zeros_like(lengths), lengths - 1).copy()
    assert seen == [(1, 15), (1, 15), (1, 8), (1, 9)]
    after = engine.step(prompts[:, :1], lengths, np.zeros(2, int)).copy()
    for row, length in enumerate(lengths):
        expected = alone.step(prompts[row : row + 1, :length], np.array([0]), np.array([length - 1]))
        assert np.abs(logits[row] - expected).max() <= 1e-5 * np.abs(expected).max()
        expected = alone.step(prompts[row : row + 1, :1], np.array([length]), np.array([0]))
        assert np.abs(after[row] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_fits_into_a_chunk_is_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a small batch stay together; so do the single tokens of any number of rows."""
    engine = language("bundle", batch=2)
    assert engine.chunk == PREFILL_CHUNK
    seen = runs(engine, monkeypatch)
    engine.step(noise(2, 9, engine._text.hidden_size), np.zeros(2, int), np.full(2, 8))
    engine.chunk = 1
    engine.step(noise(2, 1, engine._text.hidden_size), np.full(2, 9), np.zeros(2, int))
    assert seen == [(2, 9), (2, 1)]
