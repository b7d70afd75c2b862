"""Our safetensors reader and writer against the safetensors library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from hired_edge.errors import CheckpointError
from hired_edge.tensorfile import DTYPES, TensorFile, TensorWriter, bfloat16_to_float32, write_tensors

ARRAYS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
        lambda name: name != "__metadata__"
    ),
    hnp.arrays(
        st.sampled_from(sorted({dtype.str for dtype in DTYPES.values()})), hnp.array_shapes(min_dims=0, min_side=0)
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays=ARRAYS)
def test_both_libraries_read_both_files(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    write_tensors(tmp_path / "ours", arrays)
    save_file(arrays, tmp_path / "theirs")
    theirs = load_file(tmp_path / "ours")
    assert theirs.keys() == arrays.keys()
    for path in (tmp_path / "ours", tmp_path / "theirs"):
        file = TensorFile(path)
        assert set(file.names) == set(arrays)
        for name, array in arrays.items():
            for found in (file.read(name), file.mapped(name), theirs[name]):
                assert found.dtype == array.dtype
                assert found.shape == array.shape
                assert found.tobytes() == array.tobytes()


def test_bfloat16(tmp_path: Path) -> None:
    tensor = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_torch_file({"a": tensor}, tmp_path / "theirs", metadata={"format": "pt"})
    bits = TensorFile(tmp_path / "theirs").read("a")
    np.testing.assert_array_equal(bfloat16_to_float32(bits), tensor.float().numpy())
    with TensorWriter(tmp_path / "ours", {"a": ("BF16", (7, 5))}) as writer:
        writer.write("a", bits[:3])
        writer.write("a", bits[3:])
    with safe_open(tmp_path / "ours", "pt") as file:
        assert torch.equal(file.get_tensor("a"), tensor)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 200), replacement=st.binary(max_size=2), length=st.integers(0, 2))
def test_what_the_library_refuses_is_refused(tmp_path: Path, position: int, replacement: bytes, length: int) -> None:
    write_tensors(tmp_path / "t", {"a": np.arange(6, dtype=np.int16), "b": np.ones((2, 2), np.float32)})
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(data[:position] + replacement + data[position + length :])
    try:
        file = TensorFile(tmp_path / "t")
    except CheckpointError:
        return
    theirs = load_file(tmp_path / "t")
    assert set(theirs) == set(file.names)


def test_a_truncated_file_is_refused_by_both(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", {"a": np.arange(6)})
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-1])
    with pytest.raises(SafetensorError):
        load_file(tmp_path / "t")
    with pytest.raises(CheckpointError):
        TensorFile(tmp_path / "t")
