"""Where TensorRT's buffers lie and what is copied between them, held against numpy doing the same on host arrays.

Neither CUDA nor TensorRT is needed: blocks of device memory are host arrays here.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hired_edge.manifest import TextModel
from hired_runtime.cache import CacheRules, KVCache
from hired_runtime.trt.addresses import ALIGNMENT, Box, LanguageAddresses, VisionAddresses, aligned, pack, runs
from tests.tiny.manifests import example_text

INPUTS = ("inputs_embeds", "position_ids", "attention_mask", "write_indices", "last_token")


def text_model(cache: Any = "append", **changes: Any) -> TextModel:
    small: dict[str, Any] = {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4, "hidden_size": 12, "vocab_size": 11}
    return replace(example_text(), **{**small, "cache": cache, **changes})


def addresses(text: TextModel, batch: int, tokens: int, slots: int) -> LanguageAddresses:
    inputs = [*INPUTS, *CacheRules(text, slots).names.past]
    return LanguageAddresses(text, inputs, batch=batch, tokens=tokens, slots=slots)


def run_box(box: Box, target: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
    """What CUDA_MEMCPY3D means, byte by byte row."""
    for plane in range(box.depth):
        for row in range(box.height):
            start = box.source + (plane * box.source_rows + row) * box.source_pitch
            place = box.target + (plane * box.target_rows + row) * box.target_pitch
            assert 0 <= start <= start + box.width <= len(source)
            assert 0 <= place <= place + box.width <= len(target)
            target[place : place + box.width] = source[start : start + box.width]


@st.composite
def append_steps(draw: st.DrawFn) -> tuple[TextModel, int, int, list[int], int, int]:
    """A model, rows of its cache, the first of those in use, their starts, tokens, slots. Some sizes leave gaps between
    arrays."""
    text = text_model(
        layers=draw(st.integers(1, 3)),
        kv_heads=draw(st.sampled_from([1, 2])),
        head_dim=draw(st.sampled_from([2, 4, 64, 128])),
        cache_dtype=draw(st.sampled_from(["float16", "float32"])),
    )
    slots = draw(st.sampled_from([8, 24, 64]))
    tokens = draw(st.integers(1, slots // 2))
    rows = draw(st.integers(1, 3))
    used = draw(st.integers(1, rows))
    free = st.integers(0, slots - tokens)
    starts = [draw(free)] * used if draw(st.booleans()) else draw(st.lists(free, min_size=used, max_size=used))
    return text, rows, draw(st.integers(0, rows - used)), starts, tokens, slots


@settings(max_examples=60, deadline=None)
@given(append_steps())
def test_appending_writes_what_the_numpy_cache_writes_and_nothing_else(step: Any) -> None:
    text, rows, first, starts_, tokens, slots = step
    starts, batch = np.array(starts_), len(starts_)
    book = addresses(text, rows, slots // 2, slots)
    random = np.random.default_rng(0)
    device_cache = random.integers(0, 255, book.cache_bytes, dtype=np.uint8)
    device_updates = random.integers(0, 255, book.update_bytes, dtype=np.uint8)
    expected = KVCache(text, rows, slots)
    before = device_cache.copy()
    updates = book.updates(batch, tokens).fields
    for index, (past, present) in enumerate(zip(*expected.names, strict=True)):
        expected.arrays[index][:] = book.cache(rows)[past].of(before)
        expected.append(index, updates[present].of(device_updates), starts, first)
    for box in book.appended(starts, tokens, first):
        run_box(box, device_cache, device_updates)
    for index, past in enumerate(expected.names.past):
        assert book.cache(rows)[past].of(device_cache).tobytes() == expected.arrays[index].tobytes()
    outside = np.ones(book.cache_bytes, bool)
    for field in book.cache(rows).values():
        outside[field.offset : field.offset + field.nbytes] = False
    np.testing.assert_array_equal(device_cache[outside], before[outside])


@settings(max_examples=60, deadline=None)
@given(append_steps(), st.integers(0, 2), st.integers(0, 2))
def test_copying_a_row_writes_what_the_numpy_cache_writes_and_nothing_else(step: Any, source: int, target: int) -> None:
    text, rows, _, _, tokens, slots = step
    book = addresses(text, rows, slots // 2, slots)
    device_cache = np.random.default_rng(0).integers(0, 255, book.cache_bytes, dtype=np.uint8)
    expected, wanted = KVCache(text, rows, slots), device_cache.copy()
    fields = book.cache(rows)
    for index, past in enumerate(expected.names.past):
        expected.arrays[index][:] = fields[past].of(device_cache)
    assert expected.copy(source % rows, target % rows, tokens)
    for index, past in enumerate(expected.names.past):
        fields[past].of(wanted)[:] = expected.arrays[index]
    for box in book.copied(source % rows, target % rows, tokens):
        run_box(box, device_cache, device_cache)
    np.testing.assert_array_equal(device_cache, wanted)


def test_a_rows_fields_are_its_part_of_all_rows() -> None:
    book = addresses(text_model("in_place"), 3, 16, 64)
    whole, second = book.cache(3), book.cache(1, 1)
    block = np.random.default_rng(0).integers(0, 255, book.cache_bytes, dtype=np.uint8)
    for name, field in second.items():
        assert field.of(block).tobytes() == whole[name].of(block)[1:2].tobytes()


def test_one_copy_serves_all_layers_of_a_model_as_they_are_used() -> None:
    """LLaVA-7B and Mistral: 64 arrays in one copy where rows start alike, else one copy a row."""
    for kv_heads in (32, 8):
        text = replace(example_text(), kv_heads=kv_heads, cache="append")
        book = addresses(text, 2, 640, 960)
        assert len(book.appended(np.array([17]), 1)) == 1
        assert len(book.appended(np.array([0, 0]), 640)) == 1
        assert len(book.appended(np.array([17, 40]), 1)) == 2
        (box,) = book.appended(np.array([17]), 1)
        assert (box.width, box.height, box.depth) == (256, kv_heads, 64)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 30), st.sampled_from(["in_place", "append"]))
def test_blocks_hold_every_smaller_step_and_fields_do_not_overlap(batch: int, tokens: int, cache: Any) -> None:
    book = addresses(text_model(cache), 4, 30, 64)
    for layout, size in ((book.inputs(batch, tokens), book.input_bytes), (book.updates(batch, tokens), None)):
        end = 0
        for field in layout.fields.values():
            assert field.offset % ALIGNMENT == 0
            assert field.offset >= end
            end = field.offset + field.nbytes
        assert end <= layout.nbytes <= (size if size is not None else layout.nbytes)
    if cache == "append":
        assert book.updates(batch, tokens).nbytes <= book.update_bytes
    else:
        assert book.update_bytes == 0
    ends = [field.offset + field.nbytes for field in book.cache(batch).values()]
    assert max(ends) <= book.cache_bytes
    assert book.logits(batch).nbytes <= book.logits_bytes


def test_a_cache_array_keeps_its_address_whatever_the_batch() -> None:
    book = addresses(text_model("in_place"), 3, 16, 64)
    offsets = [[field.offset for field in book.cache(batch).values()] for batch in (1, 2, 3)]
    assert offsets[0] == offsets[1] == offsets[2]
    assert all(offset % ALIGNMENT == 0 for offset in offsets[0])
    shapes = [{field.shape for field in book.cache(batch).values()} for batch in (1, 3)]
    assert shapes == [{(1, 2, 64, 4)}, {(3, 2, 64, 4)}]


def test_the_cache_takes_what_the_planner_says() -> None:
    text = example_text()
    book = addresses(text, 2, 640, 960)
    assert book.cache_bytes == 2 * 32 * 2 * 32 * 960 * 128 * 2
    assert book.cache_bytes == KVCache(replace(text, layers=1), 2, 960).nbytes * 32


def test_shapes_are_the_graphs_own() -> None:
    book = addresses(text_model("in_place"), 2, 16, 64)
    assert book.shapes(2, 5) == {
        "inputs_embeds": (2, 5, 12),
        "position_ids": (2, 5),
        "attention_mask": (2, 1, 5, 64),
        "write_indices": (2,),
        "last_token": (2,),
        **{f"past_key_values.{i}.{part}": (2, 2, 64, 4) for i in range(2) for part in ("key", "value")},
    }


def test_an_append_graph_without_write_indices_is_fed_none() -> None:
    text = text_model("append")
    inputs = [name for name in INPUTS if name != "write_indices"] + CacheRules(text, 64).names.past
    book = LanguageAddresses(text, inputs, batch=1, tokens=8, slots=64)
    assert list(book.inputs(1, 8).fields) == [name for name in INPUTS if name != "write_indices"]


def test_inputs_are_written_and_read_back_through_one_block() -> None:
    book = addresses(text_model("in_place"), 2, 16, 64)
    block = np.zeros(book.input_bytes, np.uint8)
    embeds = np.random.default_rng(0).standard_normal((2, 3, 12)).astype(np.float32)
    arrays = book.rules.step_inputs(embeds, np.array([4, 0]), np.array([2, 1]), INPUTS)
    fields = book.inputs(2, 3).fields
    assert arrays.keys() == fields.keys()
    for name, field in fields.items():
        field.of(block)[:] = arrays[name]
    for name, field in fields.items():
        np.testing.assert_array_equal(field.of(block), arrays[name].astype(field.dtype))
    assert fields["position_ids"].of(block).tolist() == [[4, 5, 6], [0, 1, 2]]


rows_ = st.lists(st.integers(-1, 400), min_size=0, max_size=60)


@settings(max_examples=200, deadline=None)
@given(rows_, st.integers(1, 64), st.integers(1, 512))
def test_runs_hold_every_kept_row_once_and_no_newline(rows: list[int], row_bytes: int, call_bytes: int) -> None:
    found = runs(np.array(rows, np.int64), row_bytes, call_bytes)
    copied = [row for start, stop in found for row in range(start, stop)]
    assert len(copied) == len(set(copied))
    assert copied == sorted(copied)
    assert {row for row in rows if row >= 0} <= set(copied)
    assert all(start in rows and stop - 1 in rows for start, stop in found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=7, unique=True),
    st.sampled_from([8, 16]),
    st.sampled_from([24, 50]),
)
def test_no_other_choice_of_runs_is_cheaper(rows: list[int], row_bytes: int, call_bytes: int) -> None:
    """All ways to cut sorted rows into runs, by brute force."""

    def cost(cut: list[tuple[int, int]]) -> int:
        return sum(call_bytes + (stop - start) * row_bytes for start, stop in cut)

    ordered = sorted(rows)
    best = min(
        cost(pieces(ordered, [gap for gap in range(len(ordered) - 1) if mask >> gap & 1]))
        for mask in range(2 ** (len(ordered) - 1))
    )
    assert cost(runs(np.array(rows), row_bytes, call_bytes)) == best


def pieces(ordered: list[int], cuts: list[int]) -> list[tuple[int, int]]:
    bounds = [0, *(cut + 1 for cut in cuts), len(ordered)]
    return [(ordered[a], ordered[b - 1] + 1) for a, b in pairwise(bounds)]


@pytest.mark.parametrize("tiles", [1, 3])
def test_features_of_pictures_lie_apart_and_rows_are_numpys(tiles: int) -> None:
    book = VisionAddresses(image_size=8, patches=5, width=6, images=2, tiles=3, dtype=np.dtype(np.float16))
    block = np.zeros(book.feature_bytes, np.uint8)
    random = np.random.default_rng(1)
    features = random.standard_normal((2, tiles, 5, 6)).astype(np.float16)
    for slot in range(2):
        book.features(tiles, slot).of(block)[:] = features[slot]
    rows = np.array([4, 0, -1, tiles * 5 - 1, 4])
    for slot in range(2):
        staged = np.full(book.slot_bytes, 255, np.uint8)
        offset = book.features(1, slot).offset
        for start, stop in runs(rows, book.row_bytes, 1):
            part = slice(start * book.row_bytes, stop * book.row_bytes)
            staged[part] = block[offset:][part]
        got = book.rows_of(staged)[rows]
        kept = rows >= 0
        np.testing.assert_array_equal(got[kept], features[slot].reshape(-1, 6)[rows[kept]])


def test_vision_blocks_hold_the_largest_picture() -> None:
    book = VisionAddresses(image_size=8, patches=5, width=6, images=2, tiles=3, dtype=np.dtype(np.float16))
    assert book.pixel_bytes >= book.pixels(3).nbytes == 3 * 3 * 8 * 8 * 2
    assert book.map_bytes >= 2 * 3 * 5 * 4
    assert book.features(3, 1).offset + book.features(3, 1).nbytes <= book.feature_bytes
    assert list(book.maps(2).fields) == ["allocation_attention", "selection_attention"]
    assert all(field.offset % ALIGNMENT == 0 for field in book.maps(2).fields.values())


def test_packing_is_aligned_and_in_order() -> None:
    half = np.dtype(np.float16)
    layout = pack([("a", (3,), half), ("b", (128,), half), ("c", (), half)])
    assert [(name, field.offset) for name, field in layout.fields.items()] == [("a", 0), ("b", 256), ("c", 512)]
    assert layout.nbytes == 768
    assert [aligned(size) for size in (0, 1, 256, 257)] == [0, 256, 256, 512]
