"""What the planner knows of storage is what the exporter does, by its own tables and by the files of real bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from hired_edge.budget import parse_budget
from hired_edge.bundle import read_manifest
from hired_edge.manifest import Precision, Target
from hired_edge.planner import storage
from hired_edge.planner.config import model_shape, read_model
from hired_edge.planner.footprint import Request, footprint, text_model
from hired_edge.planner.shapes import ModelShape
from hired_export import exporter, parity, quantisation, targets
from hired_export.exporter import ExportOptions, export
from tests.host.bundles import Bundles, marked, traced_language

DEMO = Path(__file__).parents[2] / "demo"


@pytest.mark.parametrize("target", get_args(Target))
def test_the_tables_agree(target: Target) -> None:
    ours, theirs = storage.TARGETS[target], targets.TARGETS[target]
    for name in ("dtype", "precisions", "block_sizes", "vision", "cache"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert storage.CHANNEL_BLOCK == quantisation.STORAGE_BLOCK


@pytest.mark.parametrize(("target", "precision"), [(t, p) for t in get_args(Target) for p in get_args(Precision)])
def test_a_matrix_takes_what_the_quantiser_writes(target: Target, precision: Precision) -> None:
    facts = storage.TARGETS[target]
    if precision not in facts.precisions:
        return
    for block in facts.block_sizes:
        _, schemes = targets.schemes(target, precision, block)
        for scheme in (schemes.decoder, schemes.lm_head):
            if scheme is None:
                continue
            inputs = 384
            blocks = scheme.blocks(inputs) if facts.blocks_alone or scheme.block_size else 1
            integers = 5 * (blocks * scheme.bytes_per_block() if facts.blocks_alone else inputs * scheme.bits // 8)
            expected = integers + 5 * blocks * facts.item
            assert storage.matrix_bytes((5, inputs), scheme.bits, scheme.block_size, facts) == expected


def check(model: ModelShape, bundle: Path) -> None:
    """Weights within 5 %, without the graphs' nodes to the byte but for alignment; cache, buffers and table exact."""
    manifest = read_manifest(bundle)
    planned = storage.stored_in(model, manifest)
    assert planned.weights == pytest.approx(manifest.memory.weights, rel=0.05)
    graphs = (manifest.vision_graph, manifest.language_graph(manifest.limits))
    tensors = sum(manifest.files[name].bytes for graph in graphs for name in graph.data)
    nodes = storage.GRAPH_BYTES_PER_LAYER * (model.tower.exported_layers + model.text.layers)
    count = len(model.language_tensors) + len(model.vision_tensors)
    assert 0 <= tensors - (planned.weights - nodes) < 4096 * 2 * count
    assert 0 <= manifest.memory.embedding_mapped - planned.embedding < 1024  # the file's header
    limits = manifest.limits
    request = Request(limits.text_tokens, limits.new_tokens, limits.batch, limits.images)
    taken = footprint(model, manifest.target, planned, request.limits(model, parse_budget(limits.visual_tokens)), 0)
    assert taken.kv_cache == manifest.memory.kv_cache
    assert taken.buffers == manifest.memory.buffers
    described = text_model(model, manifest.target)
    assert described.cache_dtype == manifest.text.cache_dtype
    assert described.head_dim == manifest.text.head_dim


@pytest.mark.parametrize("name", marked())
def test_bundles_of_the_suite(name: str, bundles: Bundles) -> None:
    exported = bundles(name)
    check(read_model(str(exported.checkpoint)), exported.bundle)


def test_the_demonstration_model() -> None:
    check(model_shape(json.loads((DEMO / "checkpoint/config.json").read_text())), DEMO / "bundle")


def test_bytes_for_the_tower_and_the_embeddings(bundles: Bundles, tmp_path: Path) -> None:
    checkpoint = bundles.checkpoint("next-llama")
    options = ExportOptions(vision_precision="int8", embedding="int8", max_text_tokens=64, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "language_graph", traced_language)
        export(checkpoint, tmp_path / "out", options, check=parity.check)
    check(model_shape(json.loads((checkpoint / "config.json").read_text())), tmp_path / "out")
