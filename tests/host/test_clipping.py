"""Searched scales of int4 blocks: never worse than rounding to nearest, near the best that there is, and storable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hired_export.quantisation import BLOCK_SIZES, Method, Scheme, dequantise, quantise, signed

Floats = NDArray[np.float32]
SMALLEST = 2.0**-24
"""Of fp16's numbers."""


@dataclass(frozen=True)
class Case:
    weight: Floats
    block: int
    importance: Floats | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Matrices of any size, normal or heavy-tailed, with rows of zeros and of very different sizes."""
    outputs, inputs = draw(st.integers(1, 5)), draw(st.integers(1, 300))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    weight = (
        random.standard_t(2, (outputs, inputs)) if draw(st.booleans()) else random.standard_normal((outputs, inputs))
    )
    weight *= np.array([draw(st.sampled_from([0, 1e-7, 0.02, 1, 300])) for _ in range(outputs)])[:, None]
    importance = None
    if draw(st.booleans()):
        importance = (random.standard_normal(inputs) ** 2 * 10.0 ** random.integers(-6, 6, inputs)).astype(np.float32)
        importance[random.random(inputs) < 0.2] = 0
    return Case(weight.astype(np.float32), draw(st.sampled_from(BLOCK_SIZES)), importance)


def block_errors(weight: Floats, scheme: Scheme, importance: Floats | None) -> NDArray[np.float64]:
    """sum(importance * (w' - w)**2) of each block, (outputs, blocks)."""
    inputs = weight.shape[1]
    stored = quantise(weight, scheme, importance if scheme.method == "awq" else None)
    error = np.square(dequantise(*stored, scheme, inputs).astype(np.float64) - weight)
    error *= 1.0 if importance is None else importance
    padded = np.zeros((len(weight), scheme.blocks(inputs) * scheme.storage_block))
    padded[:, :inputs] = error
    return padded.reshape(len(weight), -1, scheme.storage_block).sum(axis=2)


@settings(max_examples=120, deadline=None)
@given(cases())
def test_no_block_is_worse_than_rounded_to_nearest(case: Case) -> None:
    method: Method = "hqq" if case.importance is None else "awq"
    found = block_errors(case.weight, Scheme(4, case.block, method), case.importance)
    rounded = block_errors(case.weight, Scheme(4, case.block), case.importance)
    assert (found <= rounded * (1 + 1e-4) + 1e-30).all()  # both are sums of float32


@settings(max_examples=80, deadline=None)
@given(cases())
def test_what_is_stored_can_be_stored(case: Case) -> None:
    """Four bits, and scales that are numbers of fp16 and above 0, as TensorRT wants them; zeros stay zeros."""
    scheme = Scheme(4, case.block, "hqq" if case.importance is None else "awq")
    packed, scales = quantise(case.weight, scheme, case.importance)
    outputs, inputs = case.weight.shape
    assert packed.shape == (outputs, scheme.blocks(inputs), case.block // 2)
    assert packed.dtype == np.uint8
    assert scales.shape == (outputs, scheme.blocks(inputs))
    assert scales.dtype == np.float32
    assert (scales >= SMALLEST).all()
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))
    whole = signed(packed, scheme, scheme.blocks(inputs) * case.block)
    assert not whole[:, inputs:].any()
    assert not whole[:, :inputs][case.weight == 0].any()


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(1, 4))
def test_rows_can_be_quantised_in_any_parts(case: Case, rows: int) -> None:
    """As an export does, in threads; and the parity check in other parts."""
    scheme = Scheme(4, case.block, "hqq" if case.importance is None else "awq")
    whole = quantise(case.weight, scheme, case.importance)
    parts = [
        quantise(case.weight[start : start + rows], scheme, case.importance)
        for start in range(0, len(case.weight), rows)
    ]
    for got, expected in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(got), expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tail", [2, 4, 100])
def test_near_the_best_scale_there_is(tail: int, weighted: bool) -> None:
    """Against every scale of 400 up to one that clips nothing, in blocks of 32, each with its nearest integers."""
    random = np.random.default_rng(tail)
    weight = random.standard_t(tail, (60, 32)).astype(np.float32)
    importance = np.exp(random.standard_normal(32)).astype(np.float32) if weighted else None
    scheme = Scheme(4, 32, "awq" if weighted else "hqq")
    found = block_errors(weight, scheme, importance)[:, 0]
    counts = np.ones(32) if importance is None else importance.astype(np.float64)
    largest = np.abs(weight).max(axis=1, keepdims=True)
    best = np.full(len(weight), np.inf)
    for share in np.linspace(0.2, 1.15, 400):
        scale = (largest / 7 * share).astype(np.float16).astype(np.float64)
        integers = np.clip(np.rint(weight / scale), -8, 7)
        best = np.minimum(best, (counts * (integers * scale - weight) ** 2).sum(axis=1))
    rounded = block_errors(weight, Scheme(4, 32), importance)[:, 0]
    gained = (rounded - found).sum() / (rounded - best).sum()
    print(f"t({tail}): {found.sum() / best.sum():.4f} of the best error, {gained:.3f} of what there is to gain")
    assert found.sum() <= 1.06 * best.sum()
    assert gained >= 0.75


def test_what_an_input_counts_decides() -> None:
    """The largest weight of a block, whose input is never there, does not spoil the others."""
    weight = np.zeros((1, 32), np.float32)
    weight[0, :3] = [6.3, -2.7, 11]  # 7 and -3 steps of 0.9; rounded to nearest, 4 and -2 of 1.57
    importance = np.ones(32, np.float32)
    importance[2] = 0
    scheme = Scheme(4, 32, "awq")
    back = dequantise(*quantise(weight, scheme, importance), scheme, 32)
    np.testing.assert_allclose(back[0, :2], weight[0, :2], atol=0.01)
    np.testing.assert_array_equal(weight[0, 2:4], [11, 0])  # the caller's matrix is left alone
