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
    graph = replace(manifest.language_graph, inputs=("inputs_embeds", "attention_mask"))
    masked = memory_plan(replace(manifest, language_graph=graph))
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
    graph = replace(manifest.language_graph, data=manifest.language_graph.data * 2)
    assert memory_plan(replace(manifest, language_graph=graph)).weights == memory_plan(manifest).weights


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
