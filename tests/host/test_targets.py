"""Every target's graphs, run by ONNX Runtime on the CPU: the same tokens as target `cpu`, or a near-tie of the logits.

What is compared is the graph: the CPU's int8 and int4 are run here without rounding activations to int8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hired_edge.bundle import Bundle
from hired_edge.errors import InputError
from hired_edge.limits import cache_lengths
from hired_edge.manifest import Target
from hired_export import targets
from hired_export.exporter import ExportOptions, export
from hired_export.lowering import jp6
from hired_export.quantisation.scheme import Scheme
from hired_export.targets import TARGETS
from tests.host.bundles import PRECISIONS, Bundles
from tests.host.near_ties import check_same, unrounded
from tests.host.reference import opened, picture

QUESTIONS = [
    ("What is it?", picture(107, 80)),
    ("Read the sign.", picture(30, 170)),
    ("How many are there?", picture(56, 56)),
]
SAME = [
    (f"{target}-{precision}", f"cpu-{precision if precision != 'fp16' else 'fp32'}")
    for target in ("cuda", "jp7", "jp6")
    for precision in PRECISIONS[target]
]


@pytest.mark.parametrize(("name", "reference"), SAME)
def test_the_same_tokens_as_on_the_cpu(name: str, reference: str, bundles: Bundles, tmp_path: Path) -> None:
    plain = bundles(reference).bundle
    theirs = plain if reference == "cpu-fp32" else unrounded(plain, tmp_path / "cpu")
    for budget in ("100%", "20%"):
        error = check_same(theirs, bundles(name).bundle, budget, QUESTIONS)
        print(f"{name} at {budget}: largest error of the logits {error:.1e} of the largest")


@pytest.mark.parametrize("name", [name for name, _ in SAME])
def test_a_graph_for_every_budget_over_one_weights_file(name: str, bundles: Bundles) -> None:
    root = bundles(name).bundle
    manifest = Bundle.open(root).manifest
    lengths = [graph.max_sequence_length for graph in manifest.language_graphs]
    assert lengths == list(cache_lengths(manifest.limits, manifest.vision.tiling))
    assert len(lengths) == 2
    assert {graph.data for graph in manifest.language_graphs} == {("language/model.onnx.data",)}
    caches = []
    for budget, length in zip(("20%", "100%"), lengths, strict=True):
        model, recorder = opened(root, visual_tokens=budget)
        assert {array.shape[2] for array in recorder.engine.cache.arrays} == {length}
        assert {array.dtype for array in recorder.engine.cache.arrays} == {np.dtype(np.float16)}
        caches.append(model.cache_bytes)
        assert model.cache_bytes == recorder.engine.cache.nbytes
    assert caches[0] * lengths[1] == caches[1] * lengths[0]
    for graph in manifest.graphs:
        assert (root / graph.file).stat().st_size < 200_000  # a graph and no weights
        onnx.checker.check_model(str(root / graph.file), full_check=True)


@pytest.mark.parametrize("precision", PRECISIONS["jp6"])
def test_jp6_has_nothing_that_came_after_opset_20(precision: str, bundles: Bundles) -> None:
    manifest = Bundle.open(bundles(f"jp6-{precision}").bundle).manifest
    assert manifest.text.cache == "append"
    quantised = precision != "fp16"
    for graph in manifest.graphs:
        model = onnx.load(bundles(f"jp6-{precision}").bundle / graph.file, load_external_data=False)
        opset = jp6.OPSET_QUANTISED if quantised and graph in manifest.language_graphs else jp6.OPSET
        assert {(each.domain, each.version) for each in model.opset_import} == {("", opset)}
        for node in model.graph.node:
            since = onnx.defs.get_schema(node.op_type, opset).since_version
            assert since <= 20 or node.op_type not in ("Attention", "TensorScatter"), node.op_type
            assert onnx.defs.get_schema(node.op_type, 20).since_version <= 20
    assert "write_indices" not in manifest.language_graphs[0].inputs


def test_jp6_gives_out_the_new_keys_and_values_alone(bundles: Bundles) -> None:
    root = bundles("jp6-fp16").bundle
    manifest = Bundle.open(root).manifest
    for graph in manifest.language_graphs:
        model = onnx.load(root / graph.file, load_external_data=False)
        shapes = {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        head = [manifest.text.kv_heads, manifest.text.head_dim]
        for layer in range(manifest.text.layers):
            for part in ("key", "value"):
                past, present = shapes[f"past_key_values.{layer}.{part}"], shapes[f"present.{layer}.{part}"]
                assert past == ["batch", head[0], graph.max_sequence_length, head[1]]
                assert present == ["batch", head[0], "sequence", head[1]]


def test_a_window_and_a_head_in_parts(bundles: Bundles) -> None:
    """A sliding window comes in the mask, of the new keys from the positions; the LM head is three products."""
    windowed = bundles("next-mistral-window").bundle
    ours = bundles("jp6-window").bundle
    names = {
        t.name
        for t in onnx.load(
            ours / Bundle.open(ours).manifest.language_graphs[0].file, load_external_data=False
        ).graph.initializer
    }
    assert {f"lm_head.{i}.weight" for i in range(3)} <= names
    assert "lm_head.weight" not in names
    check_same(windowed, ours, "100%", QUESTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "jp7", "precision": "fp32"}, "--precision fp32 with --target jp7; expected fp16 or int8 or int4"),
        ({"target": "cpu", "precision": "fp16"}, "--precision fp16 with --target cpu"),
        ({"target": "jp6", "precision": "int4", "block_size": 32}, "--block-size 32 with --target jp6"),
        ({"target": "jp6", "precision": "int4"}, "int4 in blocks of 128 for matrices with 64 inputs"),
        ({"target": "jp6", "lm_head_parts": 0}, "--lm-head-parts 0"),
    ],
)
def test_what_a_target_does_not_have_is_refused(options: dict, message: str, bundles: Bundles, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        export(bundles.checkpoint("next-llama"), tmp_path / "out", ExportOptions(progress=False, **options))
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_not_chosen(target: Target) -> None:
    """int4: searched scales, blocks of 128. Precisions without blocks have none to search."""
    assert targets.schemes(target, "int4", None)[1].decoder == Scheme(4, 128, "hqq")
    assert targets.schemes(target, "int4", 64, "rtn")[1].decoder == Scheme(4, 64, "rtn")
    assert targets.schemes(target, "int8", None)[1].decoder == Scheme(8, None, "rtn")
    assert targets.schemes(target, None, None)[1].decoder is None
