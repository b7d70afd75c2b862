"""Safetensors files: a round trip, rows and chunks, and headers that lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hired_edge.errors import BundleError, CheckpointError
from hired_edge.tensorfile import DTYPES, TensorFile, TensorInfo, TensorWriter, bfloat16_to_float32, write_tensors

ARRAYS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(4, 3),
    "halves": np.linspace(-1, 1, 7, dtype=np.float16),
    "scalar": np.array(2.5),
    "empty": np.empty((0, 5), np.int8),
    "flags": np.array([True, False, True]),
    "nibbles": np.arange(255, dtype=np.uint8).reshape(5, 51),
}


def file_of(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: object = "U8", shape: object = (2,), offsets: object = (0, 2)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_round_trip_mapped_and_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", ARRAYS)
    file = TensorFile(tmp_path / "t")
    assert set(file.names) == set(ARRAYS)
    for name, array in ARRAYS.items():
        for found in (file.mapped(name), file.read(name)):
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array, strict=True)
    with pytest.raises(ValueError, match="read-only"):
        file.mapped("matrix")[0] = 0


def test_info(tmp_path: Path) -> None:
    path = file_of(tmp_path / "t", {"b": entry(offsets=[2, 4]), "a": entry()}, b"wxyz")
    file = TensorFile(path)
    assert file.names == ("a", "b")
    assert file.info("b") == TensorInfo("U8", (2,), path.stat().st_size - 2, 2)
    assert bytes(file.read("b")) == b"yz"


def test_rows(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", ARRAYS)
    file = TensorFile(tmp_path / "t")
    np.testing.assert_array_equal(file.read("matrix", 1, 3), ARRAYS["matrix"][1:3])
    np.testing.assert_array_equal(file.read("matrix", 3, 99), ARRAYS["matrix"][3:])
    assert file.read("matrix", 4).shape == (0, 3)
    assert file.read("empty", 0, 3).shape == (0, 5)


def test_the_order_of_the_mapping_does_not_change_the_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", ARRAYS)
    write_tensors(tmp_path / "b", dict(reversed(ARRAYS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_of_any_layout_are_written(tmp_path: Path) -> None:
    arrays = {"t": ARRAYS["matrix"].T, "big": ARRAYS["matrix"].astype(">f4"), "step": ARRAYS["halves"][::2]}
    write_tensors(tmp_path / "t", arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(TensorFile(tmp_path / "t").read(name), array)


def test_chunks_give_the_same_file_as_the_whole(tmp_path: Path) -> None:
    table = np.arange(1000, dtype=np.float16).reshape(100, 10)
    with TensorWriter(tmp_path / "a", {"none": ("F32", (0,)), "table": ("F16", (100, 10))}) as writer:
        for start in range(0, 100, 33):
            writer.write("table", table[start : start + 33])
    with TensorWriter(tmp_path / "b", {"none": ("F32", (0,)), "table": ("F16", (100, 10))}) as writer:
        writer.write("table", table)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(TensorFile(tmp_path / "a").mapped("table"), table)
    assert TensorFile(tmp_path / "a").read("none").shape == (0,)


def test_an_interrupted_file_is_removed(tmp_path: Path) -> None:
    def interrupted() -> None:
        with TensorWriter(tmp_path / "t", {"a": ("U8", (4,))}) as writer:
            writer.write("a", np.zeros(2, np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "t").exists()


def test_an_unfinished_file_is_removed(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="left unwritten"),
        TensorWriter(tmp_path / "t", {"a": ("U8", (4,))}) as writer,
    ):
        writer.write("a", np.zeros(2, np.uint8))
    assert not (tmp_path / "t").exists()


def test_bfloat16_is_raw_bits(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.0, np.inf], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    with TensorWriter(tmp_path / "t", {"a": ("BF16", (2, 2))}) as writer:
        writer.write("a", bits)
    file = TensorFile(tmp_path / "t")
    assert file.info("a").dtype == "BF16"
    assert file.read("a").dtype == np.uint16
    np.testing.assert_array_equal(bfloat16_to_float32(file.read("a")).reshape(-1), values)


MALFORMED = {
    "no file": None,
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header past the end": (9).to_bytes(8, "little") + b"{}",
    "header of 2**64 - 1 bytes": b"\xff" * 8 + b"{}",
    "no header": b"\0" * 8,
}


@pytest.mark.parametrize("case", MALFORMED)
def test_files_that_are_none(tmp_path: Path, case: str) -> None:
    content = MALFORMED[case]
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    with pytest.raises(CheckpointError, match="expected"):
        TensorFile(tmp_path / "t")
    with pytest.raises(BundleError, match="expected"):
        TensorFile(tmp_path / "t", BundleError)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[]", "no JSON object"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1, "a": 2}', "twice"),
        ({"a": 1}, "malformed entry 'a'"),
        ({"a": {"dtype": "U8"}}, "malformed entry"),
        ({"a": {**entry(), "more": 1}}, "malformed entry"),
        ({"a": entry("U9")}, "dtype 'U9'"),
        ({"a": entry([])}, "dtype a list"),
        ({"a": entry(shape=[-2])}, "malformed shape"),
        ({"a": entry(shape=[2.0])}, "malformed shape"),
        ({"a": entry(shape=[True, 2])}, "malformed shape"),
        ({"a": entry(shape=[1] * 33)}, "malformed shape"),
        ({"a": entry(shape=[2**80])}, "malformed shape"),
        ({"a": entry(shape=[0, 2**62], offsets=[0, 0]), "b": entry()}, "beyond 64 bits"),
        ({"a": entry(offsets=[0])}, "malformed data_offsets"),
        ({"a": entry(offsets=[2, 0])}, "-2 bytes for 'a'; expected 2"),
        ({"a": entry(offsets=[0, 1])}, "1 bytes for 'a'; expected 2"),
        ({"a": entry("F32")}, "2 bytes for 'a'; expected 8"),
        ({"a": entry(offsets=[1, 3])}, "'a' at byte 1 of its data; expected 0"),
        ({"a": entry(), "b": entry(offsets=[1, 3])}, "'b' at byte 1 of its data; expected 2"),
        ({"a": entry(), "b": entry()}, "at byte 0 of its data; expected 2"),
        ({"a": entry(shape=[3], offsets=[0, 3])}, "by its header"),
        ({"a": entry(shape=[1], offsets=[0, 1])}, "by its header"),
        ({}, "by its header"),
    ],
)
def test_lying_headers(tmp_path: Path, header: object, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        TensorFile(file_of(tmp_path / "t", header, b"xy"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metadata_is_skipped(tmp_path: Path) -> None:
    assert TensorFile(file_of(tmp_path / "t", {"__metadata__": {"format": "pt"}, "a": entry()}, b"xy")).names == ("a",)


def test_an_unknown_tensor_and_a_file_that_shrank(tmp_path: Path) -> None:
    path = file_of(tmp_path / "t", {"a": entry()}, b"xy")
    file = TensorFile(path)
    with pytest.raises(CheckpointError, match="has no tensor 'b'"):
        file.read("b")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="ends inside 'a'"):
        file.read("a")
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        file.read("a")
    with pytest.raises(CheckpointError, match="cannot be mapped"):
        file.mapped("a")


NATURALS = st.integers(-1, 12) | st.integers()
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F8"]),
        "shape": st.lists(NATURALS, max_size=3),
        "data_offsets": st.lists(NATURALS, min_size=2, max_size=2),
    }
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(st.text(max_size=3), ENTRIES, max_size=3), data=st.binary(max_size=24))
def test_any_header_is_read_or_refused(tmp_path: Path, header: dict[str, object], data: bytes) -> None:
    try:
        file = TensorFile(file_of(tmp_path / "t", header, data))
    except CheckpointError:
        return
    assert sum(file.info(name).nbytes for name in file.names) == len(data)
    for name in file.names:
        assert file.read(name).tobytes() == file.mapped(name).tobytes()
