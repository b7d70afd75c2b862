"""The distribution that tokens are drawn from, against transformers' warpers in the order that `generate` has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hired_runtime.sampling import SamplingOptions, probabilities


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.integers(1, 400),
    spread=st.floats(0.1, 10),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 500),
    top_p=st.floats(0.01, 1),
)
def test_probabilities(seed: int, vocabulary: int, spread: float, temperature: float, top_k: int, top_p: float) -> None:
    logits = (spread * np.random.default_rng(seed).standard_normal(vocabulary)).astype(np.float32)
    options = SamplingOptions(temperature=temperature, top_k=top_k, top_p=top_p)
    # At the very edge of top-p float32 sums may fall on the other side; neither side is wrong.
    wider, narrower = (
        np.count_nonzero(
            probabilities(logits, SamplingOptions(temperature=temperature, top_k=top_k, top_p=min(1.0, top_p * factor)))
        )
        for factor in (1 + 1e-5, 1 - 1e-5)
    )
    assume(wider == narrower or top_p == 1)

    scores = torch.FloatTensor(logits[None])
    ids = torch.LongTensor([[0]])
    warpers: list[Any] = [TemperatureLogitsWarper(temperature)]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    for warper in warpers:
        scores = warper(ids, scores)
    expected = torch.softmax(scores.double(), dim=-1)[0].numpy()

    ours = probabilities(logits, options)
    assert np.array_equal(ours > 0, expected > 0)
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-9)
