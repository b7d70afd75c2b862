"""The graphs themselves: which layers and attention the encoder holds, what operators, names and bytes the files have,
and that the standard language graph means what its lowering means.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from hired_edge.bundle import Bundle
from hired_edge.errors import ExportError
from hired_edge.manifest import FileRecord
from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import tile
from hired_export import exporter, parity
from hired_export.checkpoint import Checkpoint
from hired_export.decoder import Decoder, DecoderShape
from hired_export.exporter import export
from hired_export.families import AttentionChoice, read_spec
from hired_export.graphs import parameter_shapes
from hired_export.lowering import cpu
from hired_runtime.pictures import load_picture
from hired_runtime.preprocess import pixel_values
from hired_runtime.prompt import question
from tests.host.bundles import Bundles, options, standard_language, traced_language, traced_vision, variant
from tests.host.reference import TOLERANCE, Measure, Reference, opened, picture, taken

References = Callable[[str], Reference]
REPOSITORY = Path(__file__).parents[2]


def initialisers(path: Path) -> set[str]:
    return {tensor.name for tensor in onnx.load(path, load_external_data=False).graph.initializer}


@pytest.mark.parametrize(
    ("name", "allocation", "selection", "heads"),
    [("next-llama", 0, 3, slice(None)), ("next-llama-heads", 1, 4, slice(2, 3)), ("llava-llama", 0, 3, slice(None))],
)
def test_encoder_outputs(
    name: str,
    allocation: int,
    selection: int,
    heads: slice,
    bundles: Bundles,
    references: References,
    measure: Measure,
) -> None:
    model, _ = opened(bundles(name).bundle)
    vision = model.pipeline.manifest.vision
    image = picture(150, 60)
    loaded = load_picture(image)
    rules: PreprocessRules = vision.preprocess
    pixels = pixel_values(loaded, tile(loaded.height, loaded.width, vision.tiling), rules)
    maps = model.pipeline.backend.vision.encode(pixels)
    features, attentions = references(name).vision(references(name).inputs(question("?", 1), [image]))
    got = model.pipeline.backend.vision.gather(np.arange(features.shape[0] * features.shape[1]))
    assert measure("image_features", got, features.flatten(0, 1).numpy()) <= TOLERANCE
    expected = attentions[allocation][:, heads].sum(1)
    assert measure("allocation_attention", maps.allocation, expected) <= 1e-5
    expected = attentions[selection][:, heads].sum(1)
    assert measure("selection_attention", maps.selection, expected) <= 1e-5
    assert (vision.allocation_layer, vision.selection_layer, vision.feature_layer) == (allocation, selection, 3)


def test_the_encoder_ends_after_the_last_layer_needed(bundles: Bundles) -> None:
    """The tower has 5 layers and the projector reads layer 3 (vision_feature_layer -2)."""
    names = initialisers(bundles("next-llama").bundle / "vision/model.onnx")
    assert {int(name.split(".")[1]) for name in names if name.startswith("layers.")} == {0, 1, 2, 3}
    beyond = {n for n in initialisers(bundles("next-llama-heads").bundle / "vision/model.onnx") if "layers.4." in n}
    parts = {n.removeprefix("layers.4.").rpartition(".")[0] for n in beyond}
    # Of layer 4 the attention of the CLS query is read and nothing else.
    assert parts == {"layer_norm1", "self_attn.q_proj", "self_attn.k_proj"}
    assert not any("post_layernorm" in n for n in beyond)


@pytest.mark.parametrize("name", ["next-llama", "next-mistral-window", "next-qwen2"])
def test_the_standard_graph_equals_its_lowering(
    name: str, bundles: Bundles, references: References, measure: Measure, tmp_path: Path
) -> None:
    made = bundles(name)
    standard = variant(made.bundle, tmp_path / "standard", language=standard_language(made.checkpoint))
    (theirs, recorded), (ours, lowered) = opened(standard), opened(made.bundle)
    image = picture(107, 80)
    answers = [model.ask("What is it?", [image], max_new_tokens=12) for model in (theirs, ours)]
    assert answers[0].tokens == answers[1].tokens
    got, same = taken(recorded), taken(lowered)
    assert measure("standard against lowered", got, same) <= TOLERANCE
    reference = references(name)
    expected = reference.logits(reference.inputs(question("What is it?", 1), [image]), answers[0].tokens)
    assert measure("standard against transformers", got, expected) <= TOLERANCE
    for a, b in zip(recorded.engine.cache.arrays, lowered.engine.cache.arrays, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


def test_opsets_domains_and_names(bundles: Bundles, tmp_path: Path) -> None:
    made = bundles("next-llama")
    spec = read_spec(Checkpoint(made.checkpoint), AttentionChoice())
    parameters = set(parameter_shapes(Decoder, spec.decoder))
    for standard in (traced_vision(spec.vision), traced_language(spec.decoder)):
        assert standard.opset_imports == {"": 24}
        assert {node.domain for node in standard.graph} == {""}
    filled = standard_language(made.checkpoint)
    ir.save(filled, tmp_path / "standard.onnx")
    onnx.checker.check_model(str(tmp_path / "standard.onnx"), full_check=True)
    assert {n for n in initialisers(tmp_path / "standard.onnx") if not n.startswith("int64.")} == parameters
    assert {n for n in initialisers(made.bundle / "language/model.onnx") if not n.startswith("int64.")} == parameters
    for part in ("vision", "language"):
        proto = onnx.load(made.bundle / part / "model.onnx", load_external_data=False)
        assert {(each.domain, each.version) for each in proto.opset_import} == {("", 21), (cpu.MICROSOFT, 1)}
        assert {node.domain for node in proto.graph.node} <= {"", cpu.MICROSOFT}
        assert proto.ir_version <= 10
        assert not proto.functions
    manifest = Bundle.open(made.bundle).manifest
    assert [graph.opset for graph in manifest.graphs] == [21, 21]


def test_a_graph_says_nothing_about_this_machine(bundles: Bundles) -> None:
    made = bundles("next-llama")
    files = [(made.bundle / part / "model.onnx").read_bytes() for part in ("vision", "language")]
    files.append(ir.to_proto(standard_language(made.checkpoint)).SerializeToString())
    places = {str(REPOSITORY), str(made.checkpoint), str(made.bundle), str(Path.home()), sys.prefix, os.getcwd()}
    traces = {"site-packages", ".py", "Traceback", 'File "', "stack_trace", "pkg.torch", "torch.nn"}
    for content in files:
        found = [text for text in places | traces if len(text) > 1 and text.encode() in content]
        assert not found
    manifest = (made.bundle / "manifest.json").read_text()
    assert not [place for place in places if len(place) > 1 and place in manifest]


EXPORT = """
from pathlib import Path
from hired_export import parity
from hired_export.exporter import export
from tests.host.bundles import options
export(Path({checkpoint!r}), Path({out!r}), options({name!r}), check=parity.check)
"""


@pytest.mark.slow  # in `make test` the committed bundles are made again, byte for byte
def test_an_export_is_reproducible(bundles: Bundles, tmp_path: Path) -> None:
    """Another process, with other hashes of strings: the same bytes, and the same manifest but for what is measured."""
    name = "next-llama-heads"
    made, out = bundles(name), tmp_path / "again"
    places = os.pathsep.join(str(REPOSITORY / folder) for folder in (".", "export", "runtime"))
    code = EXPORT.format(checkpoint=str(made.checkpoint), out=str(out), name=name)
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": "1234"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)
    ours, again = Bundle.open(made.bundle).manifest, Bundle.open(out).manifest
    golden = {file for case in ours.golden for file in (case.inputs, case.outputs)}
    for file in set(ours.files) - golden:
        assert (out / file).read_bytes() == (made.bundle / file).read_bytes(), file
    assert replace(again, parity=(), files=without(again.files, golden)) == replace(
        ours, parity=(), files=without(ours.files, golden)
    )


def without(files: dict[str, FileRecord], names: set[str]) -> dict[str, FileRecord]:
    return {name: record for name, record in files.items() if name not in names}


def test_a_piece_that_is_no_number_is_the_one_that_is_named() -> None:
    errors = {"worse": 2.0, "nan": float("nan"), "worst": 9.0, "good": 0.5}
    found = tuple(parity.Comparison(name, error, 1.0, 1.0) for name, error in errors.items())
    with pytest.raises(ExportError, match="parity check failed: nan differs by nan"):
        parity.CheckOutcome(found, ()).raise_if_failed()
    with pytest.raises(ExportError, match="parity check failed: worst differs by 9"):
        parity.CheckOutcome(tuple(c for c in found if c.piece != "nan"), ()).raise_if_failed()


def test_a_failed_parity_check_leaves_nothing(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(shape: DecoderShape, dtype: torch.dtype) -> ir.Model:
        model = traced_language(shape, dtype)
        for node in model.graph:
            if node.op_type == "RMSNormalization":
                node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-2)
        return model

    monkeypatch.setattr(exporter, "language_graph", wrong)
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)
    with pytest.raises(ExportError, match="parity check failed: language"):
        export(bundles.checkpoint("next-llama"), tmp_path / "out", options("next-llama"), check=parity.check)
    assert list(tmp_path.iterdir()) == []
