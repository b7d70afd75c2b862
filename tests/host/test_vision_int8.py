"""The vision tower with int8 products: its weights never saturate, its graph is right but for rounding, it stays near.

Measured here, on random weights; what rounding costs a trained model is in docs/performance.md and demo/accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hired_edge.errors import InputError
from hired_export import exporter
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, ModelSpec, read_spec
from hired_export.lowering.vision_int8 import ACTIVATED, ANY, PRODUCT, SCHEME
from hired_export.quantisation import quantise, signed
from hired_export.references import References
from hired_export.shipped import Seeded
from hired_export.sources import Schemes, Sources
from hired_export.targets import TARGETS, schemes
from hired_export.vision_check import ROUNDED_TOLERANCE, outputs
from hired_export.writing import Writing
from tests.host.bundles import traced_vision
from tests.tiny.checkpoints import write_checkpoint

Floats = NDArray[np.float32]
FEATURES = ("image_features", "allocation_attention", "selection_attention")
LAYERS = 4
"""Of the tiny tower, up to the one that the projector reads; attention is read in the first and the last of them."""


class Tower(NamedTuple):
    graph: Path
    pixels: Floats
    expected: dict[str, Floats]
    """transformers' outputs with the weights rounded as in the bundle."""
    exact: dict[str, Floats]
    """The same with the checkpoint's weights."""
    errors: dict[str, float]
    sources: Sources


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    folder = tmp_path_factory.mktemp("int8")
    write_checkpoint(folder / "checkpoint")
    return made(folder, AttentionChoice())


def made(folder: Path, attention: AttentionChoice) -> Tower:
    checkpoint = Checkpoint(folder / "checkpoint")
    spec = read_spec(checkpoint, attention)
    _, stored = schemes("cpu", "fp32", None, vision="int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "vision_graph", traced_vision)
        model = exporter.lowered_vision(spec, stored, TARGETS["cpu"])
    sources = Sources(checkpoint, spec)
    writing = Writing(folder, sources, stored, None, lambda count: None)
    writing.vision(model)
    pixels = Seeded(spec).pixels
    return Tower(
        folder / "vision/model.onnx",
        pixels,
        reference(checkpoint, spec, stored, pixels),
        reference(checkpoint, spec, schemes("cpu", "fp32", None)[1], pixels),
        {error.name: error.value for error in writing.errors},
        sources,
    )


@torch.inference_mode()
def reference(checkpoint: Checkpoint, spec: ModelSpec, stored: Schemes, pixels: Floats) -> dict[str, Floats]:
    found = References(checkpoint, spec, stored).vision(torch.from_numpy(pixels))
    return {name: value.numpy() for name, value in zip(FEATURES, found, strict=True)}


def excess(got: dict[str, Floats], expected: dict[str, Floats]) -> float:
    """The largest error of an output, in its largest value."""
    return max(float(np.abs(got[n] - expected[n]).max() / np.abs(expected[n]).max()) for n in FEATURES)


def test_without_the_rounding_of_activations_it_is_transformers_with_rounded_weights(tower: Tower) -> None:
    assert excess(outputs(tower.graph, tower.pixels, as_shipped=False), tower.expected) < 1e-5
    assert excess(tower.expected, tower.exact) > 1e-4, "rounding is to be seen"


@pytest.mark.slow  # two graphs to be traced
@pytest.mark.parametrize("attention", [AttentionChoice(2, 2), AttentionChoice(0, LAYERS)], ids=["one layer", "behind"])
def test_attention_of_other_layers(attention: AttentionChoice, tmp_path: Path) -> None:
    """Read twice in one layer, or in a layer behind the one that the projector reads."""
    write_checkpoint(tmp_path / "checkpoint")
    other = made(tmp_path, attention)
    assert excess(outputs(other.graph, other.pixels, as_shipped=False), other.expected) < 1e-5


def test_its_errors_are_not_the_decoders(tower: Tower) -> None:
    """Both have a `layers.0.self_attn.q_proj.weight`."""
    assert set(tower.sources.language) & set(tower.sources.vision)
    assert not set(tower.errors) & set(tower.sources.language)
    assert {name.removeprefix("vision.") for name in tower.errors} < set(tower.sources.vision)


def test_the_room_that_is_asked_for_is_that_of_bytes(tower: Tower) -> None:
    floats, integers = (
        tower.sources.output_bytes(schemes("cpu", "fp32", None, vision=each)[1]) for each in ("fp32", "int8")
    )
    whole = sum(tensor.float_bytes for tensor in tower.sources.vision.values())
    written = tower.graph.with_name("model.onnx.data").stat().st_size
    assert floats - integers == pytest.approx(whole - written, rel=0.25)  # two layers of four: both


def test_as_shipped_it_stays_near_the_exact_tower(tower: Tower) -> None:
    got = outputs(tower.graph, tower.pixels)
    assert excess(got, tower.expected) < ROUNDED_TOLERANCE / 4
    a, b = (each["image_features"].reshape(-1, got["image_features"].shape[-1]) for each in (got, tower.exact))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99
    assert cosine.mean() > 0.999


def test_a_tiles_features_do_not_depend_on_its_neighbours(tower: Tower) -> None:
    loud = np.concatenate([tower.pixels[:1], 100 * tower.pixels[1:]])
    alone = outputs(tower.graph, tower.pixels[:1])
    for batch in (tower.pixels, loud):
        together = outputs(tower.graph, batch)
        for name in FEATURES:
            np.testing.assert_allclose(together[name][:1], alone[name], atol=1e-5 * np.abs(alone[name]).max())


def test_the_graph_runs_on_the_oldest_onnxruntime_and_keeps_the_cls_rows_in_float(tower: Tower) -> None:
    model = onnx.load(tower.graph, load_external_data=False)
    assert max(each.version for each in model.opset_import) <= 21
    assert not any(node.domain for node in model.graph.node if node.op_type not in (PRODUCT, "MultiHeadAttention"))
    floats = [node.input[1] for node in model.graph.node if node.op_type == "MatMul"]
    stored = {tensor.name for tensor in model.graph.initializer}
    layers = (0, LAYERS - 1)
    read = {f"layers.{layer}.self_attn.{part}_proj.weight" for layer in layers for part in "qk"}
    assert {name for name in floats if name in stored} == read
    assert len(tower.errors) == 6 * LAYERS + 2
    assert max(tower.errors.values()) < 0.02


@pytest.mark.parametrize("field", ["scales", "quantised"])
def test_a_broken_weight_is_no_rounding(tower: Tower, field: str, tmp_path: Path) -> None:
    """One matrix's scales doubled, or its integers negated, in a copy of the data."""
    model = onnx.load(tower.graph)
    (tensor,) = (t for t in model.graph.initializer if t.name == f"layers.1.mlp.fc2.weight.{field}")
    array = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(2 * array if field == "scales" else -array, tensor.name))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert excess(outputs(path, tower.pixels, as_shipped=False), tower.expected) > 1e-3


@pytest.mark.parametrize("target", ["cuda", "jp7", "jp6"])
def test_other_targets_refuse_it(target: str) -> None:
    with pytest.raises(InputError, match=r"--vision-precision int8 with --target .*expected fp16"):
        schemes(target, None, None, vision="int8")  # pyright: ignore[reportArgumentType] (a parameter)
    with pytest.raises(InputError, match="--vision-precision fp16 with --target cpu"):
        schemes("cpu", None, None, vision="fp16")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 300), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 2.0]))
def test_no_pair_of_weights_can_saturate(outputs_: int, inputs: int, seed: int, mean: float) -> None:
    """255 (|a| + |b|) fits a signed word for weights of one sign, and 255 |a| alone for others."""
    weight = (mean + np.random.default_rng(seed).standard_normal((outputs_, inputs))).astype(np.float32)
    packed, scales = quantise(weight, SCHEME)
    integers = signed(packed, SCHEME, inputs + inputs % 2).astype(int)
    positive = np.maximum(integers, 0).reshape(outputs_, -1, 2).sum(2)
    negative = np.maximum(-integers, 0).reshape(outputs_, -1, 2).sum(2)
    assert 255 * max(positive.max(), negative.max()) < 2**15
    assert np.abs(integers[:, :inputs] * scales[:, :1] - weight).max() <= 0.501 * scales.max()


def test_the_kernel_adds_the_worst_bytes_exactly() -> None:
    """Where it adds pairs in 16 bits, weights that `SCHEME` allows are summed right."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((48, 256)).astype(np.float32)
    packed, _ = quantise(weight, SCHEME)
    integers = np.ascontiguousarray(signed(packed, SCHEME, 256).T)
    x = np.where(random.random((7, 256)) < 0.5, 255, 0).astype(np.uint8)
    x[0], x[1] = 255, 0
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)]
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    stored = {
        "w": integers,
        "one": np.array(1, np.float32),
        "scales": np.ones(48, np.float32),
        "zero": np.array(ANY.zero_point, np.uint8),
    }
    node = helper.make_node(PRODUCT, ["x", "w", "one", "scales", "zero"], ["y"], domain="com.microsoft")
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in stored.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "product", inputs, result, tensors)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = (x.astype(int) - ANY.zero_point) @ integers.astype(int)
    np.testing.assert_array_equal(np.asarray(session.run(None, {"x": x})[0]), expected)


def test_activation_functions_stay_above_what_their_bytes_hold() -> None:
    from transformers.activations import ACT2FN

    from hired_export.lowering.vision_int8 import BOUNDED

    x = torch.linspace(-20, 20, 400_001)
    for name in BOUNDED:
        assert ACTIVATED.least is not None
        assert float(ACT2FN[name](x).min()) >= ACTIVATED.least
    assert ANY.zero_point + ANY.steps <= 255
    assert ACTIVATED.zero_point + ACTIVATED.steps <= 255
