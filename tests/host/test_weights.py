"""Weights streamed into external data: DequantizeLinear's layout from rows, and numbers that float16 cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from hired_edge.errors import CheckpointError
from hired_export import weights
from hired_export.external import ExternalData
from hired_export.lowering.dequantise_linear import TYPES
from hired_export.lowering.matmul import placeholder, quantised_name, scales_name
from hired_export.quantisation import Scheme, dequantise, quantise
from hired_export.tensor import Tensor

SCHEMES = [Scheme(8, None), Scheme(4, 64), Scheme(4, 128), Scheme(4, 64, "hqq")]
INPUTS, OUTPUTS = 384, 22


def written(matrix: NDArray[np.float32], scheme: Scheme, folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The integers (in, out) and scales that DequantizeLinear reads, as float32."""
    outputs, inputs = matrix.shape
    graph = ir.Graph([], [], nodes=[], name="weights")
    shape = (outputs,) if scheme.block_size is None else (inputs // scheme.block_size, outputs)
    values = (
        placeholder(graph, quantised_name("w"), TYPES[scheme.bits], (inputs, outputs)),
        placeholder(graph, scales_name("w"), ir.DataType.FLOAT16, shape),
    )
    tensor = Tensor(matrix.shape, lambda start, stop: matrix[start:stop], bfloat16=False)
    with ExternalData(folder / "model.onnx") as data:
        weights.write_quantised(data, graph, "w", tensor, scheme)
    found = []
    for value in values:
        stored = value.const_value
        assert isinstance(stored, ir.ExternalTensor)
        loaded = ir.ExternalTensor(
            stored.location, stored.offset, stored.length, stored.dtype, shape=stored.shape, name="w", base_dir=folder
        )
        found.append(loaded.numpy().astype(np.float32))
    return found[0], found[1]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("rows", [1, 16, 2**10])
def test_any_number_of_rows_gives_the_dequantised_weights(
    scheme: Scheme, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BLOCK_WEIGHTS", rows * INPUTS)
    matrix = np.random.default_rng(0).standard_normal((OUTPUTS, INPUTS), np.float32)
    integers, scales = written(matrix, scheme, tmp_path)
    spread = scales if scheme.block_size is None else np.repeat(scales, scheme.block_size, axis=0)
    np.testing.assert_array_equal((integers * spread).T, dequantise(*quantise(matrix, scheme), scheme, INPUTS))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_row_of_zeros_has_a_scale_that_tensorrt_takes(scheme: Scheme, tmp_path: Path) -> None:
    """As unused rows of a vocabulary have it; its parser asserts "Scale coefficients must all be positive"."""
    matrix = np.ones((OUTPUTS, INPUTS), np.float32)
    matrix[1], matrix[2] = 0, 1e-12
    integers, scales = written(matrix, scheme, tmp_path)
    assert (scales > 0).all()
    assert not integers[:, 1:3].any()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_scale_beyond_float16(scheme: Scheme, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tensor w\.quantised holds numbers too large"):
        written(np.full((OUTPUTS, INPUTS), 1e7, np.float32), scheme, tmp_path)


def test_blocks_of_an_odd_number_of_outputs(tmp_path: Path) -> None:
    """MatMulNBits' bytes hold neighbouring inputs: no output needs another one."""
    matrix, scheme = np.random.default_rng(1).standard_normal((21, INPUTS), np.float32), Scheme(4, 64)
    graph = ir.Graph([], [], nodes=[], name="weights")
    value = placeholder(graph, quantised_name("w"), ir.DataType.UINT8, (21, INPUTS // 64, 32))
    placeholder(graph, scales_name("w"), ir.DataType.FLOAT, (21 * INPUTS // 64,))
    tensor = Tensor(matrix.shape, lambda start, stop: matrix[start:stop], bfloat16=False)
    with ExternalData(tmp_path / "model.onnx") as data:
        weights.write_quantised(data, graph, "w", tensor, scheme)
    size = int(np.prod(value.shape.numpy())) if value.shape else 0
    found = np.fromfile(tmp_path / "model.onnx.data", np.uint8, size)
    np.testing.assert_array_equal(found, quantise(matrix, scheme)[0].reshape(-1))


def test_a_weight_beyond_float16(tmp_path: Path) -> None:
    graph = ir.Graph([], [], nodes=[], name="weights")
    value = placeholder(graph, "norm.weight", ir.DataType.FLOAT16, (2,))
    with (
        ExternalData(tmp_path / "model.onnx") as data,
        pytest.raises(CheckpointError, match=r"tensor norm\.weight holds numbers too large"),
    ):
        data.write(value, [np.array([1, 70000], np.float32)])
