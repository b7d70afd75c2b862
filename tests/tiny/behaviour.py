"""What every backend must do alike, as checks that take an opened model: the same for a real GPU and a faked one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import hired_runtime
from hired_runtime.backend import Floats, Ints, LanguageEngine


@dataclass
class Recorder:
    """A language engine that passes every step on and keeps its logits (B, V)."""

    engine: LanguageEngine
    logits: list[Floats]

    def step(
        self, inputs_embeds: Floats, starts: Ints, last_token: Ints, positions: Ints | None = None, first: int = 0
    ) -> Floats:
        logits = self.engine.step(inputs_embeds, starts, last_token, positions, first)
        self.logits.append(logits.copy())
        return logits

    def copy(self, source: int, target: int, tokens: int) -> bool:
        return self.engine.copy(source, target, tokens)

    def reset(self) -> None:
        self.engine.reset()


def check_same_answers(
    model: hired_runtime.Model,
    reference: hired_runtime.Model,
    requests: Sequence[tuple[str, list[Any], dict[str, Any]]],
    tolerance: float,
) -> None:
    """The same tokens; or they part where the reference's own two logits lie within `tolerance` of its largest."""
    for prompt, images, options in requests:
        with recording(reference) as recorder:
            expected = reference.ask(prompt, images, **options)
        answer = model.ask(prompt, images, **options)
        assert [s.kept for s in answer.selections] == [s.kept for s in expected.selections]
        for step, (got, right) in enumerate(zip(answer.tokens, expected.tokens, strict=False)):
            if got != right:
                logits = recorder.logits[step][0]
                gap = float(logits[right] - logits[got])
                assert gap <= tolerance * float(np.abs(logits).max()), f"step {step}: {got}, not {right}, by {gap}"
                break
        else:
            assert answer.tokens == expected.tokens


class recording:
    """The model's language engine, recorded while the block runs."""

    def __init__(self, model: hired_runtime.Model) -> None:
        self._pipeline = model.pipeline

    def __enter__(self) -> Recorder:
        self._before = self._pipeline.backend
        recorder = Recorder(self._before.language, [])
        self._pipeline.backend = self._before._replace(language=recorder)
        return recorder

    def __exit__(self, *exception: object) -> None:
        self._pipeline.backend = self._before


def check_ragged_rows(model: hired_runtime.Model, reference: hired_runtime.Model, tolerance: float) -> None:
    """Two rows of unlike lengths, decoded on, then a prefill of one row behind them, and of the other: logits as the
    reference's."""
    engine, other = (each.pipeline.backend.language for each in (model, reference))
    width = model.pipeline.manifest.text.hidden_size
    random = np.random.default_rng(3)
    lengths, steps = np.array([9, 5]), 3
    prompt = random.standard_normal((2, 9, width)).astype(np.float32)
    prompt[1, 5:] = 0
    tokens = random.standard_normal((steps, 2, 1, width)).astype(np.float32)
    later = random.standard_normal((1, 4, width)).astype(np.float32)
    nothing = np.zeros(2, np.int64)
    for each in (engine, other):
        each.reset()
    for number in range(steps + 5):
        if number == 0:
            feeds: tuple[Any, ...] = (prompt, nothing, lengths - 1)
        elif number <= steps:
            feeds = (tokens[number - 1], lengths + number - 1, nothing)
        elif number == steps + 1:  # fewer rows than were opened
            feeds = (later, lengths[:1] + steps, np.array([3]))
        elif number == steps + 2:
            feeds = (tokens[0], np.array([lengths[0] + steps + 4, lengths[1] + steps]), nothing)
        elif number == steps + 3:  # the second row alone
            feeds = (later, lengths[1:] + steps + 1, np.array([3]), None, 1)
        else:
            feeds = (tokens[1, 1:], lengths[1:] + steps + 5, nothing[1:], None, 1)
        got, right = engine.step(*feeds), other.step(*feeds)
        assert got.shape == right.shape
        assert np.abs(got - right).max() <= tolerance * np.abs(right).max(), number
    for each in (engine, other):
        each.reset()


def check_reset_heals(model: hired_runtime.Model, ask: Callable[[], list[int]]) -> None:
    """What a broken request left in the cache, NaN in every slot that it reached, is gone after `reset`, and after
    `reset_row` of each row where the engine has it."""
    before = ask()
    language, width = model.pipeline.backend.language, model.pipeline.manifest.text.hidden_size
    rows = model.limits.batch
    poison = np.full((rows, 12, width), np.nan, np.float32)
    for by_row in (False, True):
        language.step(poison, np.zeros(rows, np.int64), np.full(rows, 11))
        if not by_row or not all(language.reset_row(row) for row in range(rows)):
            language.reset()
        assert ask() == before
