"""The quantiser by itself: half a step at most, besides the rounding of scales; the layout that onnxruntime reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hired_export.quantisation import BLOCK_SIZES, Scheme, dequantise, quantise

SCHEMES = [Scheme(8, None), *(Scheme(4, block) for block in BLOCK_SIZES)]
Floats = NDArray[np.float32]
HALF, SMALLEST = 2.0**-11, 2.0**-24
"""Of fp16, in which scales are stored: half the distance of two neighbours, relative; the smallest number."""


@dataclass(frozen=True)
class Case:
    scheme: Scheme
    weight: Floats


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Matrices (outputs, inputs) of any size, odd ones too, with rows of zeros and rows of very different scales."""
    outputs, inputs = draw(st.integers(1, 6)), draw(st.integers(1, 300))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    weight = random.standard_normal((outputs, inputs))
    weight *= np.array(draw(st.lists(st.sampled_from([0, 1e-6, 0.02, 1, 300]), min_size=outputs, max_size=outputs)))[
        :, None
    ]
    return Case(draw(st.sampled_from(SCHEMES)), weight.astype(np.float32))


def grouped(weight: Floats, scheme: Scheme) -> Floats:
    """(outputs, groups that share a scale, inputs of each), zeros behind the last input."""
    block = scheme.block_size or weight.shape[1]
    padded = np.zeros((len(weight), -(-weight.shape[1] // block) * block), np.float32)
    padded[:, : weight.shape[1]] = weight
    return padded.reshape(len(weight), -1, block)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_an_error_of_half_a_step_and_the_scales_rounding_at_most(case: Case) -> None:
    packed, scales = quantise(case.weight, case.scheme)
    back = dequantise(packed, scales, case.scheme, case.weight.shape[1])
    blocks = -(-case.weight.shape[1] // case.scheme.storage_block)
    assert packed.shape == (len(case.weight), blocks, case.scheme.storage_block * case.scheme.bits // 8)
    assert packed.dtype == np.uint8
    assert scales.shape == (len(case.weight), blocks)
    assert back.shape == case.weight.shape
    assert back.dtype == scales.dtype == np.float32
    groups = grouped(case.weight, case.scheme)
    levels = 2 ** (case.scheme.bits - 1) - 1
    step = np.abs(groups).max(axis=2, keepdims=True) / levels
    rounding = levels * (step * HALF + SMALLEST / 2)  # of the scale, at the largest weight
    assert (np.abs(grouped(back, case.scheme) - groups) <= step * (0.5 + 1e-4) + rounding).all()


@settings(max_examples=40, deadline=None)
@given(cases())
def test_symmetric_exact_at_the_ends_and_at_zero(case: Case) -> None:
    back = dequantise(*quantise(case.weight, case.scheme), case.scheme, case.weight.shape[1])
    minus = dequantise(*quantise(-case.weight, case.scheme), case.scheme, case.weight.shape[1])
    np.testing.assert_array_equal(back, -minus)
    assert not back[case.weight == 0].any()
    groups = grouped(case.weight, case.scheme)
    ends = 127 * SMALLEST / 2
    np.testing.assert_allclose(np.abs(grouped(back, case.scheme)).max(2), np.abs(groups).max(2), rtol=HALF, atol=ends)
    twice = dequantise(*quantise(back, case.scheme), case.scheme, case.weight.shape[1])
    np.testing.assert_allclose(twice, back, rtol=1e-6, atol=2 * ends)  # below fp16's normal numbers scales are coarse


def test_by_hand() -> None:
    """Two inputs a byte, the even one in the low half, around 8; the largest magnitude is 7 steps."""
    weight = np.zeros((1, 32), np.float32)
    weight[0, :4] = [7, -7, 3.4, -0.6]
    packed, scales = quantise(weight, Scheme(4, 32))
    assert scales.tolist() == [[1.0]]
    assert packed[0, 0, :3].tolist() == [15 + 16 * 1, 11 + 16 * 7, 8 + 16 * 8]
    packed, scales = quantise(np.array([[127, -127, 0.4]], np.float32), Scheme(8, None))
    assert scales.tolist() == [[1.0]]
    assert packed[0, 0, :4].tolist() == [255, 1, 128, 128]


@pytest.mark.parametrize("scheme", [*SCHEMES, Scheme(4, 32, "hqq")], ids=str)
@pytest.mark.parametrize("inputs", [64, 96, 130])
def test_onnxruntime_reads_it_so(scheme: Scheme, inputs: int) -> None:
    """MatMulNBits over the identity gives the dequantised weights back."""
    weight = np.random.default_rng(inputs).standard_normal((24, inputs), np.float32)
    packed, scales = quantise(weight, scheme)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "packed", "scales"],
        ["y"],
        domain="com.microsoft",
        K=inputs,
        N=24,
        bits=scheme.bits,
        block_size=scheme.storage_block,
        accuracy_level=1,
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [inputs, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [inputs, 24])],
        [onnx.numpy_helper.from_array(packed, "packed"), onnx.numpy_helper.from_array(scales.reshape(-1), "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.eye(inputs, dtype=np.float32)})
    np.testing.assert_allclose(np.asarray(got).T, dequantise(packed, scales, scheme, inputs), atol=1e-6)
