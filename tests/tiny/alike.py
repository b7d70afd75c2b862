"""Greedy answers that may have been rounded otherwise: the same tokens, or a first difference at a near-tie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

import hired_runtime
from hired_runtime.prompt import question
from hired_runtime.request import Answer, Request
from tests.tiny.behaviour import recording

TOLERANCE = 1e-4
"""fp32: of the largest logit. Twice what two logits were ever apart, for one prompt cut into other shapes."""


def from_scratch(model: hired_runtime.Model, request: Request) -> tuple[Answer, list[np.ndarray]]:
    """The answer of a request that finds an empty cache, and the logits (V,) before each of its tokens."""
    with recording(model) as recorder:
        answer = model.pipeline.generate(request).answer
    assert answer.cached_tokens == 0
    return answer, [logits[0] for logits in recorder.logits]


def check_alike(
    got: Sequence[int], right: Sequence[int], logits: Sequence[np.ndarray], tolerance: float = TOLERANCE
) -> None:
    """Raises AssertionError unless `got` is `right`, or parts from it where their two logits are a near-tie.

    Args:
        logits: before each token of `right`, (V,) each.
    """
    for step, (token, expected) in enumerate(zip(got, right, strict=False)):
        if token != expected:
            gap = float(logits[step][expected] - logits[step][token])
            most = tolerance * float(np.abs(logits[step]).max())
            assert gap <= most, f"step {step}: {token}, not {expected}, by {gap} (near-tie: {most})"
            return
    assert list(got) == list(right)


def check_conversations(
    model: hired_runtime.Model, reference: hired_runtime.Model, images: Sequence[Image.Image], tolerance: float
) -> None:
    """Two conversations in turns, each in a row of its own, and then both rows at once: as the reference from scratch.

    Args:
        model: opened with two rows.
        images: one for each conversation, not the same.
    """
    assert model.limits.batch >= 2
    model.pipeline.batcher.forget()  # whoever has stepped the engine itself has written over its cache
    sessions = [model.session([image], visual_tokens="40%", max_new_tokens=4) for image in images]
    for words in ("What is it?", "And under it?", "Why?"):
        for session in sessions:
            got = session.ask(words)
            assert (got.cached_tokens > got.selections[0].visual_tokens) == (words != "What is it?")
            asked = Request(session.messages[:-1], session.images, visual_tokens="40%", max_new_tokens=4)
            expected, logits = from_scratch(reference, asked)
            check_alike(got.tokens, expected.tokens, logits, tolerance)
    asked = [
        Request(question(words, 1), [image], visual_tokens=budget, max_new_tokens=6, reuse=True)
        for words, image, budget in zip(("Name all of it.", "No."), (images[0], images[0]), ("40%", "40%"), strict=True)
    ]  # the second row's picture is the first's: it is copied
    batcher = model.pipeline.batcher
    together = [batcher.start(each) for each in asked]
    while batcher.running:
        batcher.step()
    for each, running in zip(asked, together, strict=True):
        expected, logits = from_scratch(reference, replace(each, reuse=False))
        assert running.answer is not None
        check_alike(running.answer.tokens, expected.tokens, logits, tolerance)
