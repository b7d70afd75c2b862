"""A bundle opened at less than it was exported for: a smaller cache, the same answers, and clear refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.errors import LimitError
from hired_edge.plan import kv_cache_bytes
from tests.host.bundles import Bundles
from tests.host.reference import opened, picture, taken

PROMPT = "Describe the picture in detail."
# Of the tiny LLaVA-NeXT, 16 patches a tile: 100 % is 16 + 8 * 9 = 88 positions a picture, 20 % of (1 + 4) * 16 is 16.
FULL, FIFTH = 2 * 88, 2 * 16
TEXT, NEW = 160, 40


def ceil64(tokens: int) -> int:
    return -(-tokens // 64) * 64


def cache_bytes(model: hired_runtime.Model) -> int:
    engine: Any = model.pipeline.backend.language
    return engine.engine.cache.nbytes


def test_the_cache_follows_from_the_budget(bundles: Bundles) -> None:
    bundle = bundles("next-llama").bundle
    manifest = Bundle.open(bundle).manifest
    assert manifest.limits.formula == f"ceil64({FULL} visual + {TEXT} text + {NEW} new) = {ceil64(FULL + TEXT + NEW)}"
    per_token = 2 * 3 * 4 * 16 * 4  # keys and values, layers, heads, head_dim, float32
    for opening, visual, batch in (({}, FULL, 1), ({"visual_tokens": "20%"}, FIFTH, 1), ({"batch": 3}, FULL, 3)):
        model, _ = opened(bundle, **opening)
        length = ceil64(visual + TEXT + NEW)
        assert (model.limits.visual_tokens, model.limits.max_sequence_length) == (visual, length)
        assert cache_bytes(model) == per_token * length * batch == kv_cache_bytes(manifest.text, length, batch)
        assert model.limits.formula == f"ceil64({visual} visual + {TEXT} text + {NEW} new) = {length}"


def test_a_small_opening_answers_as_a_large_one(bundles: Bundles) -> None:
    bundle = bundles("next-llama").bundle
    (large, recorded), (small, other) = opened(bundle), opened(bundle, visual_tokens="20%")
    for images in ([picture(107, 80)], [picture(107, 80), picture(30, 170)]):
        expected = large.ask(PROMPT, images, visual_tokens="20%", max_new_tokens=NEW)
        answer = small.ask(PROMPT, images, max_new_tokens=NEW)
        assert (answer.text, answer.tokens) == (expected.text, expected.tokens)
        np.testing.assert_array_equal(taken(other), taken(recorded))
        assert [s.gather.tolist() for s in answer.selections] == [s.gather.tolist() for s in expected.selections]


def test_a_request_above_the_opening_is_refused(bundles: Bundles) -> None:
    model, recorder = opened(bundles("next-llama").bundle, visual_tokens="20%")
    images = [picture(112, 112, seed=seed) for seed in range(2)]
    with pytest.raises(LimitError, match=r"^64 visual tokens asked for; expected at most 32, which .* opened with"):
        model.ask(PROMPT, images, visual_tokens="40%")
    with pytest.raises(LimitError, match=r"^176 visual tokens asked for; expected at most 32, "):
        model.ask(PROMPT, images, policy="full")
    with pytest.raises(LimitError, match=r"^41 new tokens asked for; expected at most 40, "):
        model.ask(PROMPT, images, max_new_tokens=41)
    with pytest.raises(LimitError, match=r"^3 pictures asked for; expected at most 2, "):
        model.ask(PROMPT, [*images, images[0]])
    with pytest.raises(LimitError, match=r"^\d{3,} text tokens asked for; expected at most 160, "):
        model.ask("0 1 2 3 4 5 6 7 8 9 " * 10, images)
    assert not recorder.logits, "nothing was run"


@pytest.mark.parametrize(
    ("opening", "message"),
    [
        ({"batch": 4}, "4 batch rows asked for; expected at most 3, which the bundle was exported with"),
        (
            {"visual_tokens": 177},
            "177 visual tokens asked for; expected at most 176, which the bundle was exported",
        ),
    ],
)
def test_an_opening_above_the_export_is_refused(opening: dict[str, Any], message: str, bundles: Bundles) -> None:
    with pytest.raises(LimitError, match=message):
        hired_runtime.open(bundles("next-llama").bundle, **opening)
