"""The protobuf walk against files that the onnx package wrote, with external tensors wherever onnx allows one."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hired_edge.errors import BundleError
from hired_edge.onnx_locations import external_locations


def external(location: str) -> TensorProto:
    tensor = TensorProto(name=location, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def sparse(values: str, indices: str) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=external(values), indices=external(indices), dims=[4])


def graph(*initialisers: str) -> onnx.GraphProto:
    return helper.make_graph([], "g", [], [], [external(location) for location in initialisers])


def everywhere() -> onnx.ModelProto:
    """A model with an external tensor in each place; whether it could run does not matter."""
    node = helper.make_node("Op", ["x"], ["y"], name="location")
    for name, kind, value in (
        ("t", "t", external("attribute")),
        ("g", "g", graph("subgraph")),
        ("s", "sparse_tensor", sparse("sparse-values", "sparse-indices")),
    ):
        getattr(node.attribute.add(name=name), kind).CopyFrom(value)
    node.attribute.add(name="ts").tensors.extend([external("list-0"), external("list-1")])
    inner = graph("nested")
    inner.node.add().attribute.add(name="deep").t.CopyFrom(external("nested-attribute"))
    node.attribute.add(name="gs").graphs.extend([inner])
    node.attribute.add(name="ss").sparse_tensors.extend([sparse("many-values", "many-indices")])
    main = helper.make_graph([node], "main", [], [], [external("initialiser"), external("model.onnx.data")])
    main.sparse_initializer.append(sparse("initialiser-values", "initialiser-indices"))
    main.initializer.append(numpy_helper.from_array(np.arange(300, dtype=np.float32), "location"))
    model = helper.make_model(main)
    function = model.functions.add(name="f", domain="d")
    function.node.add().attribute.add(name="v").t.CopyFrom(external("function"))
    function.attribute_proto.add(name="default").t.CopyFrom(external("function-default"))
    training = model.training_info.add()
    training.initialization.CopyFrom(graph("training-initialisation"))
    training.algorithm.CopyFrom(graph("training-algorithm"))
    return model


def test_every_place_is_searched(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(everywhere().SerializeToString())
    assert external_locations(tmp_path / "m.onnx") == {
        "initialiser",
        "model.onnx.data",
        "initialiser-values",
        "initialiser-indices",
        "attribute",
        "subgraph",
        "sparse-values",
        "sparse-indices",
        "list-0",
        "list-1",
        "nested",
        "nested-attribute",
        "many-values",
        "many-indices",
        "function",
        "function-default",
        "training-initialisation",
        "training-algorithm",
    }


def test_as_onnx_saves_it(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    model = helper.make_model(helper.make_graph([node], "g", [shape], [], [weights]))
    onnx.save(model, tmp_path / "inside.onnx")
    assert external_locations(tmp_path / "inside.onnx") == set()
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    assert external_locations(tmp_path / "out.onnx") == {"out.onnx.data"}


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "a\nb", "é", ""])
def test_escapes_are_reported_as_they_are(tmp_path: Path, location: str) -> None:
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph(location)).SerializeToString())
    assert external_locations(tmp_path / "m.onnx") == {location}


def nested(depth: int) -> bytes:
    """A graph with an external tensor, in so many graphs, each an attribute of the only node of the next."""

    def wrap(number: int, payload: bytes) -> bytes:
        size, length = len(payload), b""
        while size > 0x7F:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + payload

    data = graph("deep").SerializeToString()
    for _ in range(depth):  # graph -> node -> attribute -> graph
        data = wrap(1, wrap(5, wrap(6, data)))
    return wrap(7, data)


def test_what_protobuf_reads_is_read_however_deep_and_no_more(tmp_path: Path) -> None:
    def readable(depth: int) -> bool:
        try:
            onnx.load_from_string(nested(depth))
        except DecodeError:
            return False
        return True

    deepest = max(depth for depth in range(60) if readable(depth))
    assert 20 < deepest < 59
    path = tmp_path / "m.onnx"
    path.write_bytes(nested(deepest))
    assert external_locations(path) == {"deep"}
    for depth in (deepest + 3, 2000):
        path.write_bytes(nested(depth))
        with pytest.raises(BundleError, match="more than 100 messages in messages"):
            external_locations(path)


def test_what_is_many_and_small_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    """Empty nodes of two bytes each: a hundred thousand, and ten million."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x3a\xc0\x9a\x0c" + b"\x0a\x00" * 100_000)
    tracemalloc.start()
    try:
        assert external_locations(path) == set()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    path.write_bytes(b"\x3a\x80\xda\xc4\x09" + b"\x0a\x00" * 10_000_000)
    with pytest.raises(BundleError, match="more than 524288 fields"):
        external_locations(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x3a",  # a tag without a length
        b"\x3a\x05abc",  # longer than the file
        b"\x3b",  # a group
        b"\x00\x00",  # field 0
        b"\xff" * 20,  # a number without an end
        b"\x3a\x02\x0a\x05",  # longer than its message
        b"\x0d\x00",  # half a fixed32
    ],
)
def test_what_is_no_protobuf_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"m\.onnx cannot be read as ONNX"):
        external_locations(tmp_path / "m.onnx")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        external_locations(tmp_path / "m.onnx")


BYTES = everywhere().SerializeToString()


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(BYTES) - 1), replacement=st.binary(max_size=3), length=st.integers(0, 3))
def test_what_onnx_still_reads_hides_nothing(tmp_path: Path, position: int, replacement: bytes, length: int) -> None:
    """After random damage: refused, or at least the locations that the onnx package finds in the graph's
    initialisers."""
    data = BYTES[:position] + replacement + BYTES[position + length :]
    (tmp_path / "m.onnx").write_bytes(data)
    try:
        found = external_locations(tmp_path / "m.onnx")
    except BundleError:
        return
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception:  # the parser's own error class depends on protobuf's version
        return
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert "location" not in entries or entries["location"] in found
