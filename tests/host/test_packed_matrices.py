"""Matrices that a checkpoint stores in 4 bits: read as the libraries read them, and kept in a bundle's blocks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hired_edge.manifest import Method
from hired_edge.tensorfile import TensorFile, bfloat16_to_float32
from hired_export.external import ExternalData
from hired_export.lowering.dequantise_linear import TYPES
from hired_export.lowering.matmul import placeholder, quantised_name, scales_name
from hired_export.packed.blocks import stored
from hired_export.packed.config import PackedConfig, read_config
from hired_export.packed.formats import AWQ, COMPRESSED_TENSORS, GPTQ
from hired_export.packed.gather import gathered
from hired_export.packed.matrix import PackedMatrix, PackedRows
from hired_export.quantisation import Scheme, dequantise, quantise, signed
from hired_export.tensor import Tensor
from hired_export.weights import write_quantised
from tests.host.packed_libraries import LIBRARIES
from tests.tiny import packed as tiny

NAMES = (
    "awq-symmetric",
    "awq",
    "gptq-symmetric",
    "gptq",
    "gptq-act-order",
    "compressed-tensors-symmetric",
    "compressed-tensors",
)
FORMATS = {"awq": AWQ, "gptq": GPTQ, "gptq_v2": GPTQ, "compressed-tensors": COMPRESSED_TENSORS}


def tensor(array: NDArray[Any]) -> Tensor:
    array = np.ascontiguousarray(array)
    return Tensor(array.shape, lambda start, stop: array[start:stop], bfloat16=False)


def opened(parts: dict[str, NDArray[Any]], method: str, group: int) -> PackedMatrix:
    """The matrix behind a layer's stored parts."""
    zeros = method != "compressed-tensors" or "weight_zero_point" in parts
    said = PackedConfig(FORMATS[method], group, zeros=zeros, one_less=method == "gptq")
    found = gathered({f"layer.{suffix}": tensor(part) for suffix, part in parts.items()}, said)
    assert list(found) == ["layer.weight"]
    matrix = found["layer.weight"].packed
    assert matrix is not None
    assert found["layer.weight"].shape == matrix.shape
    return matrix


@pytest.mark.parametrize("name", NAMES)
def test_as_the_library_reads_what_it_wrote(name: str) -> None:
    """tests/host/packed_libraries.py made both: its packed words, and the weights that it takes them for, in fp16."""
    file = TensorFile(LIBRARIES)
    parts = {part.partition("/")[2]: file.read(part) for part in file.names if part.startswith(f"{name}/")}
    weight = parts.pop("weight")
    method = "gptq" if name.startswith("gptq") else name.removesuffix("-symmetric")
    matrix = opened(parts, method, group=64)
    np.testing.assert_array_equal(matrix.dequantised(0, 32).astype(np.float16), weight)
    # Packed again by the tests' own packer, it is the library's, word for word.
    rows = matrix.rows(0, 32)
    groups = np.arange(128) // 64 if rows.groups is None else rows.groups.astype(np.int64)
    assert (rows.groups is not None) == name.endswith("act-order")
    zeros = _zeros(parts, method)
    integers = rows.integers.astype(np.int64) + zeros[:, groups]
    again = tiny.stored(tiny.Packed(integers, zeros, rows.scales.astype(np.float16), groups), method)  # pyright: ignore
    assert set(again) == set(parts)
    for suffix, part in again.items():
        np.testing.assert_array_equal(part, parts[suffix], err_msg=suffix)


def _zeros(parts: dict[str, NDArray[Any]], method: str) -> NDArray[np.int64]:
    """Zero points (outputs, groups) of 32 outputs, nibble by nibble."""
    if method == "compressed-tensors":
        if "weight_zero_point" not in parts:
            return np.full((32, 2), 8)
        words = parts["weight_zero_point"].T
    else:
        words = parts["qzeros"]
    order = tiny.AWQ_NIBBLES if method == "awq" else tiny.PLAIN_NIBBLES
    values = np.zeros((2, 32), np.int64)
    for nibble, neighbour in enumerate(order):
        values[:, neighbour::8] = words >> 4 * nibble & 15
    return values.T + (method == "gptq")


@st.composite
def matrices(draw: st.DrawFn) -> tiny.Packed:
    """Any integers and zero points, not only those that a quantiser makes; 0 as well, which GPTQ stores as -1."""
    outputs, group, count = 8 * draw(st.integers(1, 3)), draw(st.sampled_from([8, 32])), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return tiny.Packed(
        integers=random.integers(0, 16, (outputs, group * count)),
        zeros=np.full((outputs, count), 8) if draw(st.booleans()) else random.integers(0, 16, (outputs, count)),
        scales=random.uniform(1e-3, 1, (outputs, count)).astype(np.float16),
        groups=np.arange(group * count) // group,
    )


@settings(max_examples=40, deadline=None)
@given(matrices(), st.sampled_from(tiny.METHODS), st.data())
def test_reading_what_was_packed_gives_the_same_integers(
    matrix: tiny.Packed, method: tiny.Method, data: st.DataObject
) -> None:
    outputs, inputs = matrix.integers.shape
    found = opened(tiny.stored(matrix, method), method, inputs // matrix.zeros.shape[1])
    cuts = sorted(data.draw(st.sets(st.integers(1, outputs - 1), max_size=3)) | {0, outputs})
    parts = [found.rows(start, stop) for start, stop in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(
        np.concatenate([part.integers for part in parts]), matrix.integers - matrix.zeros[:, matrix.groups]
    )
    np.testing.assert_array_equal(np.concatenate([part.scales for part in parts]), matrix.scales)
    np.testing.assert_array_equal(np.concatenate([part.dequantised() for part in parts]), matrix.weight)


def test_nothing_is_held_after_every_row_was_read_in_any_order() -> None:
    matrix = tiny.quantised(np.random.default_rng(0).standard_normal((32, 64)), 32, symmetric=False)
    found = opened(tiny.stored(matrix, "awq"), "awq", 32)
    for _ in range(2):
        for start in (8, 24, 0):
            found.rows(start, start + 8)
            assert found._held
        found.rows(16, 24)
        assert not found._held


def kept(matrix: tiny.Packed, group: int, scheme: Scheme) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    integers = (matrix.integers - matrix.zeros[:, matrix.groups]).astype(np.int8)
    rows = PackedRows(integers, matrix.scales.astype(np.float32), None)
    return stored(rows, rows.dequantised(), group, scheme)


@pytest.mark.parametrize("method", ["rtn", "hqq"])
@pytest.mark.parametrize("block", [32, 64, 128])
def test_symmetric_integers_and_scales_are_kept_bit_for_bit(block: int, method: Method) -> None:
    """Whatever is to be done with what is quantised anew."""
    matrix = tiny.quantised(np.random.default_rng(1).standard_normal((24, 384)), 128, symmetric=True)
    assert matrix.integers.min() == 0, "-8 is there"
    assert matrix.integers.max() == 15
    packed, scales = kept(matrix, 128, Scheme(4, block, method))
    np.testing.assert_array_equal(signed(packed, Scheme(4, block), 384), matrix.integers - 8)
    np.testing.assert_array_equal(scales.astype(np.float16), np.repeat(matrix.scales, 128 // block, axis=1))


@pytest.mark.parametrize(("method", "share"), [("rtn", 0.5), ("hqq", 1)])
@pytest.mark.parametrize("block", [32, 128])
def test_blocks_of_an_asymmetric_matrix_that_fit_are_exact_and_the_others_are_near(
    block: int, method: Method, share: float
) -> None:
    """Against rounding all of it anew: less than half of the error (0.034 against 0.114 where blocks are groups). A
    search finds the checkpoint's grid by itself."""
    scheme = Scheme(4, block, method)
    matrix = tiny.quantised(np.random.default_rng(2).standard_normal((64, 1024)), 128, symmetric=False)
    weight = matrix.weight.astype(np.float32)
    found = dequantise(*kept(matrix, 128, scheme), scheme, 1024)
    around = (matrix.integers - matrix.zeros[:, matrix.groups]).reshape(64, -1, block)
    fits = ((around >= -8) & (around <= 7)).all(axis=2)
    assert 0.2 < fits.mean() < 0.95
    exact = (found == weight).reshape(64, -1, block).all(axis=2)
    np.testing.assert_array_equal(exact & fits, fits)
    anew = dequantise(*quantise(weight, scheme), scheme, 1024)

    def error(other: NDArray[np.float32]) -> float:
        return float(np.linalg.norm(other - weight) / np.linalg.norm(weight))

    print(f"block {block}: kept or clipped {error(found):.4f}, all anew {error(anew):.4f}, fitting {fits.mean():.2f}")
    assert error(found) <= share * error(anew)
    per_block = [np.square(other - weight).reshape(64, -1, block).sum(axis=2) for other in (found, anew)]
    assert (per_block[0] <= per_block[1]).all()


@pytest.mark.parametrize(
    ("group", "scheme"), [(64, Scheme(4, 128)), (32, Scheme(4, 64)), (64, Scheme(8, None))], ids=str
)
def test_other_blocks_are_quantised_anew(group: int, scheme: Scheme) -> None:
    matrix = tiny.quantised(np.random.default_rng(3).standard_normal((8, 256)), group, symmetric=True)
    for got, expected in zip(
        kept(matrix, group, scheme), quantise(matrix.weight.astype(np.float32), scheme), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_a_negative_scale_is_turned_around_with_its_integers() -> None:
    """AutoRound writes some; -8 of a negative step is 8, which does not fit: it is clipped, or the block made anew."""
    integers = np.tile(np.arange(-7, 9, dtype=np.int8), (2, 4))
    integers[0] = np.minimum(integers[0], 7)
    rows = PackedRows(-integers, np.full((2, 1), -0.5, np.float32), None)
    packed, scales = stored(rows, rows.dequantised(), 64, Scheme(4, 64))
    assert (scales > 0).all()
    found = dequantise(packed, scales, Scheme(4, 64), 64)
    np.testing.assert_array_equal(found[0], rows.dequantised()[0])
    assert np.abs(found[1] - rows.dequantised()[1]).max() <= 0.5


def test_a_scale_of_zero_is_one_that_tensorrt_takes() -> None:
    rows = PackedRows(np.full((1, 32), 5, np.int8), np.zeros((1, 1), np.float32), None)
    packed, scales = stored(rows, rows.dequantised(), 32, Scheme(4, 32))
    assert scales.tolist() == [[1.0]]
    assert not signed(packed, Scheme(4, 32), 32).any()


def test_scales_in_bfloat16_are_exact() -> None:
    scales = bfloat16_to_float32(np.array([[0x3C01, 0x3BFF]], np.uint16))  # about 0.0079
    integers = np.random.default_rng(4).integers(-8, 8, (1, 64)).astype(np.int8)
    rows = PackedRows(integers, scales, None)
    packed, found = stored(rows, rows.dequantised(), 32, Scheme(4, 32))
    np.testing.assert_array_equal(found, scales)
    np.testing.assert_array_equal(dequantise(packed, found, Scheme(4, 32), 64), rows.dequantised())


@pytest.mark.parametrize("accuracy_level", [1, 4])
def test_onnxruntime_takes_minus_eight(accuracy_level: int) -> None:
    """MatMulNBits over rows that are exact in int8 too; the lowest integer, which our own quantiser never writes."""
    matrix = tiny.quantised(np.random.default_rng(5).standard_normal((16, 128)), 64, symmetric=True)
    matrix.integers[0] = 0
    packed, scales = kept(matrix, 64, Scheme(4, 64))
    assert not packed[0].any(), "0 is -8"
    node = helper.make_node(
        "MatMulNBits",
        ["x", "packed", "scales"],
        ["y"],
        domain="com.microsoft",
        K=128,
        N=16,
        bits=4,
        block_size=64,
        accuracy_level=accuracy_level,
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [128, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [128, 16])],
        [numpy_helper.from_array(packed, "packed"), numpy_helper.from_array(scales.reshape(-1), "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.eye(128, dtype=np.float32)})
    np.testing.assert_allclose(np.asarray(got).T, matrix.weight, atol=1e-6)


@pytest.mark.parametrize("block", [64, 128])
def test_dequantize_linear_holds_the_same_integers(block: int, tmp_path: Path) -> None:
    """int4 (inputs, outputs), -8 included, and fp16 scales (blocks, outputs) bit for bit, by the writer of weights."""
    matrix = tiny.quantised(np.random.default_rng(6).standard_normal((24, 256)), 128, symmetric=True)
    found = opened(tiny.stored(matrix, "gptq"), "gptq", 128)
    read = Tensor(found.shape, found.dequantised, bfloat16=False, packed=found)
    graph = ir.Graph([], [], nodes=[], name="weights")
    values = (
        placeholder(graph, quantised_name("w"), TYPES[4], (256, 24)),
        placeholder(graph, scales_name("w"), ir.DataType.FLOAT16, (256 // block, 24)),
    )
    with ExternalData(tmp_path / "model.onnx") as data:
        error = write_quantised(data, graph, "w", read, Scheme(4, block))
    assert error.value == 0
    integers, scales = (loaded(value, tmp_path) for value in values)
    np.testing.assert_array_equal(integers.astype(np.int64).T, matrix.integers - 8)
    np.testing.assert_array_equal(scales.T, np.repeat(matrix.scales, 128 // block, axis=1))


def loaded(value: ir.Value, folder: Path) -> NDArray[Any]:
    stored = value.const_value
    assert isinstance(stored, ir.ExternalTensor)
    place = (stored.location, stored.offset, stored.length, stored.dtype)
    return ir.ExternalTensor(*place, shape=stored.shape, name="w", base_dir=folder).numpy()


def test_no_config_at_all_says_nothing(tmp_path: Path) -> None:
    assert read_config(tmp_path, lambda name: {}) is None
