"""The next token: greedy, the order of the warpers, seeds, rows, and logits that no engine may give."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from hired_edge.errors import InputError, NumericalError
from hired_runtime.sampling import Sampler, SamplingOptions, probabilities

LOGITS = np.log(np.array([[0.1, 0.4, 0.05, 0.3, 0.15]], dtype=np.float32))

finite = st.floats(-50, 50, width=32)
rows = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=finite)
options = st.builds(
    SamplingOptions,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
    seed=st.integers(0, 2**64),
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (SamplingOptions(temperature=1), {0, 1, 2, 3, 4}),
        (SamplingOptions(temperature=1, top_k=2), {1, 3}),
        (SamplingOptions(temperature=1, top_k=99), {0, 1, 2, 3, 4}),
        (SamplingOptions(temperature=1, top_p=0.39), {1}),
        (SamplingOptions(temperature=1, top_p=0.41), {1, 3}),
        (SamplingOptions(temperature=1, top_p=0.69), {1, 3}),
        (SamplingOptions(temperature=1, top_p=0.71), {1, 3, 4}),
        (SamplingOptions(temperature=1, top_p=1e-9), {1}),
        # After top-k the two have 4/7 and 3/7: top-p sees those, not the 0.4 and 0.3 of before.
        (SamplingOptions(temperature=1, top_k=2, top_p=0.57), {1}),
        # A high temperature flattens before top-p counts: 0.4 is no longer reached by one token.
        (SamplingOptions(temperature=100, top_p=0.39), {1, 3}),
    ],
)
def test_kept_tokens(given: SamplingOptions, kept: set[int]) -> None:
    chances = probabilities(LOGITS[0], given)
    assert set(np.flatnonzero(chances).tolist()) == kept
    assert chances.sum() == pytest.approx(1)


def test_equal_logits() -> None:
    flat = np.zeros(4, dtype=np.float32)
    assert probabilities(flat, SamplingOptions(temperature=1, top_k=2)).tolist() == [0.25] * 4  # all equal the second
    assert probabilities(flat, SamplingOptions(temperature=1, top_p=0.5)).tolist() == [0.5, 0.5, 0, 0]
    assert Sampler(SamplingOptions())(flat[None]).tolist() == [0]


@settings(max_examples=100, deadline=None)
@given(logits=rows)
def test_greedy_is_argmax(logits: NDArray[np.float32]) -> None:
    tokens = Sampler(SamplingOptions(temperature=0, top_k=3, top_p=0.5), len(logits))(logits)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == logits.argmax(axis=1).tolist()


@settings(max_examples=100, deadline=None)
@given(logits=rows, options=options)
def test_draws_a_kept_token_and_the_same_one_again(logits: NDArray[np.float32], options: SamplingOptions) -> None:
    first, second = (Sampler(options, len(logits)) for _ in range(2))
    for _ in range(3):
        tokens = first(logits)
        assert tokens.tolist() == second(logits).tolist()
        assert all(probabilities(row, options)[token] > 0 for row, token in zip(logits, tokens, strict=True))


@settings(max_examples=50, deadline=None)
@given(logits=rows, options=options)
def test_a_row_does_not_depend_on_the_rows_after_it(logits: NDArray[np.float32], options: SamplingOptions) -> None:
    alone, together = Sampler(options, 1), Sampler(options, len(logits))
    for _ in range(3):
        assert alone(logits[:1])[0] == together(logits)[0]


def test_frequencies() -> None:
    """20000 draws: each count within five standard deviations of what its probability says."""
    sampler, draws = Sampler(SamplingOptions(temperature=1, seed=7)), 20000
    counts = np.bincount([int(sampler(LOGITS)[0]) for _ in range(draws)], minlength=5)
    chances = np.exp(LOGITS[0].astype(np.float64))
    assert (np.abs(counts - draws * chances) < 5 * np.sqrt(draws * chances * (1 - chances))).all()


def test_rows_draw_numbers_of_their_own() -> None:
    flat = np.zeros((2, 1000), dtype=np.float32)
    tokens = Sampler(SamplingOptions(temperature=1), 2)(flat)
    assert tokens[0] != tokens[1]


@pytest.mark.parametrize("temperature", [1e-300, 1e-30])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    assert Sampler(SamplingOptions(temperature=temperature))(LOGITS).tolist() == [1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_engine_gets_no_answer(value: float, temperature: float) -> None:
    logits = np.zeros((2, 4), dtype=np.float32)
    logits[1, 2] = value
    with pytest.raises(NumericalError, match="logits of the language engine with 1 of 8 numbers that are not finite"):
        Sampler(SamplingOptions(temperature=temperature), 2)(logits)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -0.1, "temperature -0.1; expected a finite number, 0 or more; pass --temperature"),
        ("temperature", float("nan"), "temperature nan; expected"),
        ("temperature", float("inf"), "temperature inf; expected"),
        ("top_k", -1, "top-k -1; expected 0 (off) or more"),
        ("top_p", 0.0, "top-p 0.0; expected a number above 0 and up to 1"),
        ("top_p", 1.01, "top-p 1.01; expected"),
        ("top_p", float("nan"), "top-p nan; expected"),
        ("seed", -1, "seed -1; expected 0 or more"),
    ],
)
def test_options_out_of_range(field: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        SamplingOptions(**{field: value})  # type: ignore[arg-type]
