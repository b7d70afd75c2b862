"""The memory plan, against the arithmetic of LLaVA-7B and its Mistral sibling."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired_edge.budget import parse_budget
from hired_edge.errors import LimitError
from hired_edge.limits import max_sequence_length, resolve_opening
from hired_edge.plan import kv_bytes_per_token, kv_cache_bytes, largest_visual_budget, memory_plan
from tests.tiny.manifests import LLAVA_NEXT, example_manifest, example_text

MIB = 2**20
VICUNA = example_text()
MISTRAL = replace(VICUNA, model_type="mistral", kv_heads=8)


def test_bytes_of_a_token() -> None:
    assert kv_bytes_per_token(VICUNA) == MIB // 2
    assert kv_bytes_per_token(MISTRAL) == MIB // 8
    assert kv_bytes_per_token(replace(VICUNA, cache_dtype="float32")) == MIB


def test_bytes_of_a_cache() -> None:
    assert kv_cache_bytes(VICUNA, 2880, 1) == 1440 * MIB
    assert kv_cache_bytes(VICUNA, 576, 1) == 288 * MIB
    assert kv_cache_bytes(VICUNA, 576, 4) == 4 * 288 * MIB


def test_plan_of_the_example() -> None:
    manifest = example_manifest()
    plan = memory_plan(manifest)
    assert plan.weights == 100 + 101 + 102  # the example's made-up file sizes: two graphs and one data file
    assert plan.embedding_mapped == 103
    assert plan.kv_cache == 960 * MIB // 2
    pixels, features, maps = 5 * 3 * 336 * 336 * 2, 5 * 576 * 4096 * 2, 2 * 5 * 576 * 4
    embeds, logits = (576 + 256) * 4096 * 2, 32064 * 4
    assert plan.buffers == pixels + features + maps + embeds + logits
    assert plan.kv_cache_formula.endswith(f" x 960 slots x 1 rows = {plan.kv_cache}")
    (graph,) = manifest.language_graphs
    masked = memory_plan(
        replace(manifest, language_graphs=(replace(graph, inputs=("inputs_embeds", "attention_mask")),))
    )
    assert masked.buffers == plan.buffers + (576 + 256) * 960
    pictures = memory_plan(manifest, replace(manifest.limits, images=2))
    assert pictures.buffers == plan.buffers + pixels + features + maps
    assert plan.total == plan.weights + plan.kv_cache + plan.buffers + plan.prefill


def test_a_smaller_opening_takes_less() -> None:
    manifest = example_manifest()
    opened = resolve_opening(manifest.limits, LLAVA_NEXT, visual=parse_budget("5%"))
    small, whole = memory_plan(manifest, opened), memory_plan(manifest)
    assert small.kv_cache == 576 * MIB // 2  # ceil64(144 + 256 + 128)
    assert small.total < whole.total
    assert small.weights == whole.weights


def test_shared_data_is_counted_once_a_graph() -> None:
    manifest = example_manifest()
    (graph,) = manifest.language_graphs
    twice = replace(manifest, language_graphs=(replace(graph, data=graph.data * 2),))
    assert memory_plan(twice).weights == memory_plan(manifest).weights


def test_a_fixed_cache_length_is_the_graphs_not_the_requests() -> None:
    """Graphs for 5 % and for 20 %: an opening with a budget between takes the larger one's cache."""
    manifest = example_manifest()
    (graph,) = manifest.language_graphs
    both = tuple(
        replace(graph, file=f"language/model-{length}.onnx", max_sequence_length=length) for length in (576, 960)
    )
    files = {**manifest.files, **{each.file: manifest.files[graph.file] for each in both}}
    fixed = replace(manifest, language_graphs=both, files=files)
    for budget, length in (("5%", 576), ("1%", 576), ("10%", 960), ("20%", 960)):
        opened = resolve_opening(manifest.limits, LLAVA_NEXT, visual=parse_budget(budget))
        assert fixed.language_graph(opened).max_sequence_length == fixed.cache_length(opened) == length
        assert memory_plan(fixed, opened).kv_cache == length * MIB // 2
        assert manifest.cache_length(opened) == opened.max_sequence_length


def test_an_append_graph_also_gives_out_a_whole_prefill() -> None:
    manifest = example_manifest()
    appended = memory_plan(replace(manifest, text=replace(manifest.text, cache="append")))
    assert appended.buffers == memory_plan(manifest).buffers + (576 + 256) * MIB // 2


@given(
    cache=st.integers(10 * MIB, 3000 * MIB), text=st.integers(1, 300), new=st.integers(1, 300), batch=st.integers(1, 4)
)
def test_the_largest_budget_fits_and_one_more_does_not(cache: int, text: int, new: int, batch: int) -> None:
    try:
        visual = largest_visual_budget(MISTRAL, cache, text_tokens=text, new_tokens=new, batch=batch)
    except LimitError:
        assert kv_cache_bytes(MISTRAL, max_sequence_length(0, text, new), batch) > cache
        return
    length = max_sequence_length(visual, text, new)
    assert kv_cache_bytes(MISTRAL, length, batch) <= cache
    assert length <= MISTRAL.positions
    longer = max_sequence_length(visual + 1, text, new)
    assert kv_cache_bytes(MISTRAL, longer, batch) > cache or longer > MISTRAL.positions


def test_a_cache_that_holds_no_request() -> None:
    with pytest.raises(LimitError, match=r"in a cache of 1048576 bytes; expected at least 201326592 bytes"):
        largest_visual_budget(VICUNA, MIB, text_tokens=256, new_tokens=128)
