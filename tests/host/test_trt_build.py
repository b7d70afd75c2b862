"""The engine builder with NVIDIA's own parser and compiler: TensorRT-RTX, which builds without a GPU.

Nothing here is faked. What needs a GPU (deserialising an engine, so also which output shares an input's memory) is not
looked at here: without one, TensorRT deserialises nothing.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from hired_edge.engine_record import ShapeRange
from hired_edge.errors import BundleError, InputError
from hired_runtime.trt import module
from hired_runtime.trt.build_engine import BuildOptions, BuiltEngine, build_engine
from hired_runtime.trt.device import Device, find_device
from hired_runtime.trt.profiles import between
from tests.host.small_graphs import (
    attention_graph,
    attention_profiles,
    external_product_graph,
    product_graph,
    product_profiles,
    write,
)

LIBRARY = module.load("tensorrt_rtx")
SM = 86
DEVICE = find_device()
OPTIONS = BuildOptions(SM, DEVICE)


def build(tmp_path: Path, model: onnx.ModelProto, profiles: Any, options: BuildOptions = OPTIONS) -> BuiltEngine:
    return build_engine(LIBRARY, write(model, tmp_path / "model.onnx"), profiles, tmp_path / "it.engine", options)


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()}


def test_an_engine_is_written_with_its_size_and_hash(tmp_path: Path) -> None:
    engine = build(tmp_path, product_graph("fp16"), product_profiles())
    content = (tmp_path / "it.engine").read_bytes()
    assert (engine.bytes, engine.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert engine.flags == ("-TF32", "REQUIRE_USER_ALLOCATION")
    # TensorRT's own words on these bytes: no engine of this machine, for want of a GPU, or one that it takes.
    validity, _ = LIBRARY.trt.Runtime(LIBRARY.trt.Logger()).get_engine_validity(content)
    assert validity == LIBRARY.trt.EngineValidity.INVALID or DEVICE is not None
    assert left(tmp_path) == {"model.onnx", "it.engine"}


@pytest.mark.parametrize("weights", ["fp16", "int8", "int4-128", "int4-64", "int4-32"])
def test_every_precision_builds_and_keeps_its_size(weights: str, tmp_path: Path) -> None:
    """A matrix of 1024 x 1024. Quantised weights stay as they are: they are not folded into fp16."""
    engine = build(tmp_path, product_graph(weights), product_profiles())
    bits = {"fp16": 16, "int8": 8}.get(weights, 4)
    stored = 2**20 * bits // 8
    copies = (
        2 if weights == "fp16" else 1
    )  # TensorRT-RTX 1.7.1 lays fp16 weights out for each profile, int8 and int4 once
    assert copies * stored <= engine.bytes <= copies * stored + 2**19


def test_weights_may_lie_in_a_file_beside_the_graph(tmp_path: Path) -> None:
    onnx_file = external_product_graph(tmp_path)
    engine = build_engine(LIBRARY, onnx_file, product_profiles(), tmp_path / "it.engine", OPTIONS)
    assert engine.bytes > 2 * 2**20


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_a_layer_with_its_cache_builds_with_both_profiles(kv_heads: int, tmp_path: Path) -> None:
    """TensorScatter and Attention, batch symbolic, the cache's length static; grouped heads too."""
    engine = build(tmp_path, attention_graph(kv_heads), attention_profiles(kv_heads))
    assert engine.bytes > 10_000


def test_a_caches_output_is_the_parsers_cache_update_layer_of_its_input(tmp_path: Path) -> None:
    """As far as can be seen without a GPU: the layer is the one whose output shares its input's address.

    Of a deserialised engine, `get_aliased_input_tensor` tells.
    """
    trt = LIBRARY.trt
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = module.create_network(LIBRARY, builder)
    assert trt.OnnxParser(network, logger).parse_from_file(str(write(attention_graph(2), tmp_path / "model.onnx")))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    updates = [layer for layer in layers if layer.type == trt.LayerType.KV_CACHE_UPDATE]
    assert [(layer.get_input(0).name, layer.get_output(0).name) for layer in updates] == [
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.value", "present.0.value"),
    ]
    assert module.allow_decomposed_attention(LIBRARY, network) == 1
    assert hasattr(trt.ICudaEngine, "get_aliased_input_tensor")


def test_a_symbolic_cache_length_is_refused_with_the_node(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as error:
        build(tmp_path, attention_graph(2, slots="max_sequence"), attention_profiles(2))
    line = str(error.value)
    assert "TensorScatter" in line
    assert "--target jp7" in line
    assert "\n" not in line
    assert left(tmp_path) == {"model.onnx"}


REFUSED: dict[str, Callable[[], onnx.ModelProto]] = {
    "an operator of another domain": lambda: product_graph("MatMulNBits"),
    "a zero point that is not 0": lambda: product_graph("zero-point"),
}


@pytest.mark.parametrize("graph", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_parser_refuses_names_operator_and_reason(
    graph: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"(MatMulNBits|DequantizeLinear) '.*': .* \[.*_NODE\]; expected"):
        build(tmp_path, graph(), product_profiles())
    assert left(tmp_path) == {"model.onnx"}


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no graph", os.urandom(1000)):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(BundleError, match=r"model\.onnx"):
            build_engine(LIBRARY, tmp_path / "model.onnx", product_profiles(), tmp_path / "it.engine", OPTIONS)
    assert left(tmp_path) == {"model.onnx"}


def test_missing_external_data_is_refused(tmp_path: Path) -> None:
    onnx_file = external_product_graph(tmp_path)
    (tmp_path / "weights.data").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx"):
        build_engine(LIBRARY, onnx_file, product_profiles(), tmp_path / "it.engine", OPTIONS)
    assert left(tmp_path) == {"model.onnx"}


def test_a_build_that_fails_gives_the_builders_own_reason_and_keeps_the_old_engine(tmp_path: Path) -> None:
    (tmp_path / "it.engine").write_bytes(b"the engine before")
    log_file = tmp_path / "logs/build.log"
    options = BuildOptions(SM, DEVICE, workspace=1024, log_file=log_file)
    with pytest.raises(BundleError, match=r"for SM 86: .*OutOfMemory .*; expected an engine; .*--workspace") as error:
        build(tmp_path, attention_graph(2), attention_profiles(2), options)
    assert str(log_file) in str(error.value)
    assert "OutOfMemory" in log_file.read_text()
    assert (tmp_path / "it.engine").read_bytes() == b"the engine before"
    assert left(tmp_path) == {"model.onnx", "it.engine", "logs"}


def wrong(**changes: ShapeRange | None) -> tuple[dict[str, ShapeRange], ...]:
    profile = {**product_profiles()[0], **{name: shapes for name, shapes in changes.items() if shapes}}
    return ({name: shapes for name, shapes in profile.items() if changes.get(name, shapes)}, product_profiles()[1])


MISFITS = {
    "an input is missing": (wrong(x=None), "input x"),
    "an input too many": (wrong(y=between((1,), (2,))), "input y"),
    "a static dimension": (wrong(x=between((1, 512), (4, 512))), r"\(1, 512\)"),
    "a rank": (wrong(x=between((1, 1, 1024), (1, 4, 1024))), r"\(1, 1, 1024\)"),
}


@pytest.mark.parametrize(("profiles", "named"), MISFITS.values(), ids=MISFITS.keys())
def test_a_profile_that_does_not_fit_the_graph_is_refused(profiles: Any, named: str, tmp_path: Path) -> None:
    """TensorRT itself drops such a profile, or the input, and builds on."""
    with pytest.raises(BundleError, match=named):
        build(tmp_path, product_graph("fp16"), profiles)
    assert left(tmp_path) == {"model.onnx"}


def test_tensorrt_rtx_has_no_timing_cache(tmp_path: Path) -> None:
    """Its own words, and what the builder makes of it: no file is read or written."""
    trt = LIBRARY.trt
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        config.get_timing_cache()
    assert any("no-ops in TensorRT-RTX" in str(warning.message) for warning in said)
    assert not LIBRARY.timing_cache
    options = BuildOptions(SM, DEVICE, timing_cache=tmp_path / "timing.cache")
    build(tmp_path, product_graph("int8"), product_profiles(), options)
    assert left(tmp_path) == {"model.onnx", "it.engine"}


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_timing_cache_is_read_and_written_whole_where_there_is_one(tmp_path: Path) -> None:
    """The path of `tensorrt`, walked with TensorRT-RTX's calls of the same names, whose cache stays empty."""
    keeping, path = replace(LIBRARY, timing_cache=True), tmp_path / "caches/timing"
    onnx_file = write(product_graph("int8"), tmp_path / "model.onnx")
    options = BuildOptions(SM, DEVICE, timing_cache=path)
    for before in (None, b"", b"not a timing cache"):
        if before is not None:
            path.write_bytes(before)
        build_engine(keeping, onnx_file, product_profiles(), tmp_path / "it.engine", options)
        assert len(path.read_bytes()) > 100
        assert left(path.parent) == {"timing"}
    written = path.read_bytes()
    with pytest.raises(BundleError):
        build_engine(keeping, onnx_file, wrong(x=None), tmp_path / "it.engine", options)
    assert path.read_bytes() == written
    folder = BuildOptions(SM, DEVICE, timing_cache=tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        build_engine(keeping, onnx_file, product_profiles(), tmp_path / "it.engine", folder)


def test_sms_that_the_library_knows_and_others_are_refused_with_the_list() -> None:
    known = module.known_sms(LIBRARY)
    assert {75, 80, 86, 89, 120} <= set(known)
    assert 87 not in known, "tensorrt_rtx builds for an Orin now: say so in the documentation"
    for sm in known:
        assert module.choose_sm(LIBRARY, sm, None) == sm
    for sm in (87, 0, 999):
        with pytest.raises(InputError, match=", ".join(map(str, known))):
            module.choose_sm(LIBRARY, sm, None)
    with pytest.raises(InputError, match="no GPU"):
        module.choose_sm(LIBRARY, None, None)


def test_the_gpu_that_is_present_is_built_for_unless_another_is_asked_for() -> None:
    """A device that is described here, not present."""
    hopper = Device("described in a test", 90, "13.0")
    assert module.choose_sm(LIBRARY, None, hopper) == 90
    assert module.choose_sm(LIBRARY, 90, hopper) == 90
    assert module.choose_sm(LIBRARY, 86, hopper) == 86
    with pytest.raises(InputError, match="or 90, which is here"):
        module.choose_sm(LIBRARY, 87, hopper)


@pytest.mark.parametrize("sm", module.known_sms(LIBRARY))
def test_an_engine_builds_for_every_sm_that_the_library_knows(sm: int, tmp_path: Path) -> None:
    engine = build(tmp_path, product_graph("int8"), product_profiles(), BuildOptions(sm, DEVICE))
    assert engine.bytes > 2**20


def test_int4_on_a_gpu_without_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"SM 75: .*HW-specific datatypes: int4"):
        build(tmp_path, product_graph("int4-128"), product_profiles(), BuildOptions(75, DEVICE))


def test_the_small_graphs_are_valid_onnx() -> None:
    for graph in (product_graph("fp16"), product_graph("int8"), product_graph("int4-128"), attention_graph(2)):
        onnx.checker.check_model(graph, full_check=True)
