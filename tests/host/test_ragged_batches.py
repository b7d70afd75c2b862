"""Rows of different lengths in one batch: each is what it is alone. And chunks of one prompt: together, the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hired_runtime.backend import LanguageEngine
from hired_runtime.embedding import Embedding
from hired_runtime.model import Model
from tests.host.bundles import Bundles, standard_language, variant
from tests.host.reference import Measure, opened

LENGTHS = (5, 60, 33)
STEPS = 8
TOLERANCE = 1e-5
"""Of the largest logit, some 6: kernels may sum in another order for another batch."""

Floats = NDArray[np.float32]


def engine(model: Model) -> LanguageEngine:
    recorder: Any = model.pipeline.backend.language
    return recorder.engine


def generate(model: Model, prompts: list[Floats]) -> tuple[Floats, NDArray[np.int64]]:
    """Greedy from prompts (S_i, D): logits (1 + STEPS, B, V) and tokens (1 + STEPS, B)."""
    language, table = engine(model), Embedding(model.pipeline.bundle)
    lengths = np.array([len(prompt) for prompt in prompts])
    embeds = np.zeros((len(prompts), max(lengths), prompts[0].shape[1]), np.float32)
    for row, prompt in enumerate(prompts):
        embeds[row, : len(prompt)] = prompt
    logits = [language.step(embeds, np.zeros_like(lengths), lengths - 1).copy()]
    for step in range(STEPS):
        rows = table.rows(logits[-1].argmax(axis=1))[:, None]
        logits.append(language.step(rows, lengths + step, np.zeros_like(lengths)).copy())
    return np.stack(logits), np.stack(logits).argmax(axis=2)


def prompts(width: int) -> list[Floats]:
    random = np.random.default_rng(11)
    return [0.7 * random.standard_normal((length, width), np.float32) for length in LENGTHS]


@pytest.mark.parametrize(
    ("name", "kind"), [("next-llama", "lowered"), ("next-llama", "standard"), ("next-mistral-window", "lowered")]
)
def test_each_row_is_as_alone(name: str, kind: str, bundles: Bundles, tmp_path: Path, measure: Measure) -> None:
    made = bundles(name)
    folder = made.bundle
    if kind == "standard":
        folder = variant(folder, tmp_path / kind, language=standard_language(made.checkpoint))
    batched, _ = opened(folder, batch=3)
    alone, _ = opened(folder, batch=1)
    rows = prompts(batched.pipeline.manifest.text.hidden_size)
    logits, tokens = generate(batched, rows)
    for row, prompt in enumerate(rows):
        expected, same = generate(alone, [prompt])
        error = measure(f"{name} {kind}, row {row} of {len(prompt)} tokens", logits[:, row], expected[:, 0])
        assert error <= TOLERANCE * np.abs(expected).max()
        assert tokens[:, row].tolist() == same[:, 0].tolist()
    assert len({tuple(tokens[:, row]) for row in range(3)}) == 3, "three prompts, three answers"


@pytest.mark.parametrize(
    ("name", "kind"), [("next-llama", "lowered"), ("next-llama", "standard"), ("next-mistral-window", "lowered")]
)
def test_chunks_of_ragged_rows_answer_as_the_whole(name: str, kind: str, bundles: Bundles, tmp_path: Path) -> None:
    """The CPU's prefill in chunks, row by row, and then steps of all rows together: the same tokens."""
    made = bundles(name)
    folder = made.bundle
    if kind == "standard":
        folder = variant(folder, tmp_path / kind, language=standard_language(made.checkpoint))
    model, _ = opened(folder, batch=3)
    rows = prompts(model.pipeline.manifest.text.hidden_size)
    whole, tokens = generate(model, rows)
    language: Any = engine(model)
    language.chunk = 16
    chunked, same = generate(model, rows)
    assert np.abs(chunked - whole).max() <= TOLERANCE * np.abs(whole).max()
    assert tokens.tolist() == same.tolist()


def test_fewer_rows_than_opened(bundles: Bundles) -> None:
    """One request in a cache of three rows takes the first, whatever the others hold."""
    batched, _ = opened(bundles("next-llama").bundle, batch=3)
    alone, _ = opened(bundles("next-llama").bundle, batch=1)
    rows = prompts(batched.pipeline.manifest.text.hidden_size)
    generate(batched, rows)
    np.testing.assert_array_equal(generate(batched, rows[1:2])[0], generate(alone, rows[1:2])[0])


@pytest.mark.parametrize("name", ["next-llama", "next-mistral-window"])
@pytest.mark.parametrize("cut", [1, 30, 59])
def test_a_prompt_in_two_chunks(name: str, cut: int, bundles: Bundles, measure: Measure) -> None:
    """One row: a prefill that begins behind a past, as a conversation that goes on would make it."""
    model, _ = opened(bundles(name).bundle)
    language = engine(model)
    prompt = prompts(model.pipeline.manifest.text.hidden_size)[1][None]
    whole = language.step(prompt, np.array([0]), np.array([59])).copy()
    language.step(np.ascontiguousarray(prompt[:, :cut]), np.array([0]), np.array([cut - 1]))
    rest = np.ascontiguousarray(prompt[:, cut:])
    again = language.step(rest, np.array([cut]), np.array([59 - cut]))
    assert measure(f"{name}, {cut} + {60 - cut} tokens", again, whole) <= TOLERANCE * np.abs(whole).max()
