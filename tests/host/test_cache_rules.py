"""The rules of the key-value cache, one test each, on ONNX Runtime: graphs that write it in place and, made here from
the standard graph, graphs that return the new keys and values alone (`append`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hired_edge.bundle import Bundle
from hired_edge.errors import InputError
from hired_edge.manifest import Manifest, TextModel
from hired_export.graphs import replace_uses
from hired_runtime import continuous
from hired_runtime.cache import KVCache
from hired_runtime.model import Model
from hired_runtime.sampling import Sampler
from tests.host.bundles import Bundles, standard_language, variant
from tests.host.reference import TOLERANCE, Measure, opened, picture, taken
from tests.tiny.manifests import example_text

NAMES = ("next-llama", "next-mistral-window")
PROMPT = "What is on the table?"


def append_language(checkpoint: Path, window: int | None) -> ir.Model:
    """The standard graph with TensorScatter taken out: attention over past ++ new, `present.*` the new alone.

    Which new keys a query sees, the input `attention_mask` cannot say: that is made here, from the positions.
    """
    model = standard_language(checkpoint)
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    queries = _node(graph, "Unsqueeze", [inputs["position_ids"], _integers(graph, 1, 3)])
    keys = _node(graph, "Unsqueeze", [inputs["position_ids"], _integers(graph, 1, 2)])
    seen = _node(graph, "GreaterOrEqual", [queries, keys])  # (B, 1, S, S)
    if window is not None:
        oldest = _node(graph, "Sub", [queries, _integers(graph, window)])
        seen = _node(graph, "And", [seen, _node(graph, "Greater", [keys, oldest])])
    mask = _node(graph, "Concat", [inputs["attention_mask"], seen], axis=3)
    for scatter in [node for node in graph if node.op_type == "TensorScatter"]:
        past, new, present = scatter.inputs[0], scatter.inputs[1], scatter.outputs[0]
        assert past is not None
        assert new is not None
        both = ir.node("Concat", [past, new], {"axis": 2})
        graph.insert_before(scatter, both)
        replace_uses(present, both.outputs[0])
        graph.outputs[list(graph.outputs).index(present)] = new
        name, present.name = present.name, None
        new.name = name
        graph.remove(scatter, safe=True)
    for node in graph:
        if node.op_type == "Attention":
            node.replace_input_with(3, mask)
    return model


def _node(graph: ir.Graph, op_type: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
    node = ir.node(op_type, inputs, attributes)
    first = next(node for node in graph if node.op_type == "RMSNormalization")
    graph.insert_before(first, node)
    return node.outputs[0]


def _integers(graph: ir.Graph, *values: int) -> ir.Value:
    name = f"integers.{values}"
    value = ir.Value(name=name, const_value=ir.tensor(np.array(values, np.int64), name=name))
    graph.register_initializer(value)
    return value


def to_append(manifest: Manifest) -> Manifest:
    return replace(manifest, text=replace(manifest.text, cache="append"))


@pytest.fixture(scope="module", params=["lowered", "standard", "append"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def bundle(kind: str, bundles: Bundles, tmp_path: Path) -> Path:
    """next-llama as exported, over its standard graph, and over its append graph."""
    return made(kind, "next-llama", bundles, tmp_path)


def made(kind: str, name: str, bundles: Bundles, tmp_path: Path) -> Path:
    source = bundles(name)
    if kind == "lowered":
        return source.bundle
    if kind == "standard":
        return variant(source.bundle, tmp_path / kind, language=standard_language(source.checkpoint))
    window = Bundle.open(source.bundle).manifest.text.sliding_window
    graph = append_language(source.checkpoint, window)
    return variant(source.bundle, tmp_path / kind, language=graph, change=to_append)


def arrays(model: Model) -> list[np.ndarray]:
    engine: Any = model.pipeline.backend.language
    return engine.engine.cache.arrays  # below the recorder


@pytest.mark.parametrize("name", NAMES)
def test_append_equals_in_place(name: str, bundles: Bundles, tmp_path: Path, measure: Measure) -> None:
    in_place, recorded = opened(bundles(name).bundle)
    append, other = opened(made("append", name, bundles, tmp_path))
    assert append.pipeline.manifest.text.cache == "append"
    image = picture(107, 80)
    answers = [model.ask(PROMPT, [image], max_new_tokens=12) for model in (in_place, append)]
    assert answers[0].tokens == answers[1].tokens
    assert measure("append against in_place", taken(other), taken(recorded)) <= TOLERANCE
    for a, b in zip(arrays(append), arrays(in_place), strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


def test_zero_filled_at_load(bundle: Path) -> None:
    model, _ = opened(bundle)
    assert not any(array.any() for array in arrays(model))


def test_zero_filled_after_an_error_in_a_decode_with_a_fake_sampler(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, recorder = opened(bundle)
    image = picture(107, 80)
    before = model.ask(PROMPT, [image], max_new_tokens=8)
    logits = taken(recorder)

    class FakeSampler(Sampler):
        """Draws three tokens, leaves the cache full of NaN and fails."""

        drawn = 0

        def __call__(self, logits: Any) -> Any:
            self.drawn += 1
            if self.drawn > 3:
                for array in arrays(model):
                    array.fill(np.nan)
                raise InputError("a fake failure", expected="none", fix="nothing")
            return super().__call__(logits)

    with monkeypatch.context() as patch:
        patch.setattr(continuous, "Sampler", FakeSampler)
        with pytest.raises(InputError, match="a fake failure"):
            model.ask(PROMPT, [image], max_new_tokens=8)
    assert not any(array.any() for array in arrays(model)), "zero, and no NaN"
    recorder.logits.clear()
    after = model.ask(PROMPT, [image], max_new_tokens=8)
    assert after.tokens == before.tokens
    np.testing.assert_array_equal(taken(recorder), logits)


def test_zero_filled_after_an_interrupt_in_a_fake_text_stream(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = opened(bundle)

    class FakeStream(continuous.TextStream):
        def push(self, token_id: int) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(continuous, "TextStream", FakeStream)
    with pytest.raises(KeyboardInterrupt):
        model.ask(PROMPT, [picture(107, 80)], max_new_tokens=8)
    assert not any(array.any() for array in arrays(model))


def test_a_reader_that_stops_listening_does_no_harm(bundle: Path) -> None:
    model, recorder = opened(bundle)
    image = picture(107, 80)
    before = model.ask(PROMPT, [image], max_new_tokens=8)
    logits = taken(recorder)
    pieces: Any = iter(model.stream("Describe the picture in detail. " * 2, [picture(30, 170)], max_new_tokens=30))
    next(pieces)
    pieces.close()
    recorder.logits.clear()
    assert model.ask(PROMPT, [image], max_new_tokens=8).tokens == before.tokens
    np.testing.assert_array_equal(taken(recorder), logits)


@pytest.mark.parametrize(("starts", "tokens"), [([7], 4), ([7, 90], 1), ([0, 0, 0], 5)])
def test_written_in_place_and_nowhere_else(bundle: Path, starts: list[int], tokens: int) -> None:
    """Some of three rows take tokens behind their own starts: no other slot changes by a bit, no array moves."""
    model, _ = opened(bundle, batch=3)
    text = model.pipeline.manifest.text
    random = np.random.default_rng(0)
    for array in arrays(model):
        array[:] = random.standard_normal(array.shape)
    addresses = [array.ctypes.data for array in arrays(model)]
    before = [array.copy() for array in arrays(model)]
    embeds = random.standard_normal((len(starts), tokens, text.hidden_size), np.float32)
    model.pipeline.backend.language.step(embeds, np.array(starts), np.full(len(starts), tokens - 1))
    assert [array.ctypes.data for array in arrays(model)] == addresses
    written = np.zeros((3, model.limits.max_sequence_length), bool)
    for row, start in enumerate(starts):
        written[row, start : start + tokens] = True
    for array, old in zip(arrays(model), before, strict=True):
        changed = (array != old).any(axis=(1, 3))
        np.testing.assert_array_equal(changed, written)


def test_arrays_stay_where_they_are_over_requests(bundle: Path) -> None:
    model, _ = opened(bundle)
    addresses = [array.ctypes.data for array in arrays(model)]
    assert len(set(addresses)) == 2 * model.pipeline.manifest.text.layers
    for size in ((107, 80), (30, 170)):
        model.ask(PROMPT, [picture(*size)], max_new_tokens=3)
        assert [array.ctypes.data for array in arrays(model)] == addresses


@pytest.mark.parametrize("name", NAMES)
def test_unused_slots_are_never_read(name: str, bundles: Bundles, measure: Measure) -> None:
    """GroupQueryAttention reads slots in use alone: a NaN in the others does not reach an answer."""
    model, recorder = opened(bundles(name).bundle)
    image = picture(107, 80)
    before = model.ask(PROMPT, [image], max_new_tokens=8)
    logits = taken(recorder)
    for array in arrays(model):
        array.fill(np.nan)
    assert model.ask(PROMPT, [image], max_new_tokens=8).tokens == before.tokens
    np.testing.assert_array_equal(taken(recorder), logits)
    assert np.isnan(arrays(model)[0][:, :, -1]).all(), "the last slots are still as they were left"


def text_model(cache: str, window: int | None) -> TextModel:
    return replace(example_text(), layers=1, kv_heads=1, heads=1, head_dim=2, cache=cache, sliding_window=window)


@st.composite
def steps(draw: st.DrawFn) -> tuple[int, NDArray[np.int64], int]:
    """(M, starts, S): rows that begin anywhere, all within M."""
    slots, tokens = draw(st.integers(8, 64)), draw(st.integers(1, 8))
    starts = draw(st.lists(st.integers(0, slots - tokens), min_size=1, max_size=3))
    return slots, np.array(starts), tokens


@settings(max_examples=60, deadline=None)
@given(steps(), st.one_of(st.none(), st.integers(1, 12)))
def test_every_query_row_sees_a_key(step: Any, window: int | None) -> None:
    """Real or padding, row by row; and exactly the keys that a causal (windowed) query sees."""
    slots, starts, tokens = step
    in_place = KVCache(text_model("in_place", window), len(starts), slots).attention_mask(starts, tokens)
    past = KVCache(text_model("append", window), len(starts), slots).attention_mask(starts, tokens)
    assert in_place.shape == past.shape == (len(starts), 1, tokens, slots)
    assert in_place.any(axis=-1).all()
    for row, start in enumerate(starts):
        for query in range(tokens):
            position = start + query
            seen = [s for s in range(slots) if s <= position and (window is None or s > position - window)]
            assert np.flatnonzero(in_place[row, 0, query]).tolist() == seen
            # Its new keys, the query's own among them, an append graph adds itself.
            assert np.flatnonzero(past[row, 0, query]).tolist() == [s for s in seen if s < start]


@pytest.mark.parametrize(("start", "tokens"), [(-1, 4), (61, 4), (64, 1)])
def test_a_step_beyond_the_cache_is_never_run(start: int, tokens: int) -> None:
    cache = KVCache(text_model("in_place", None), 2, 64)
    cache.check_step(np.array([0, 60]), 4)
    with pytest.raises(AssertionError):
        cache.check_step(np.array([0, start]), tokens)


def test_a_step_beyond_the_cache_leaves_it_alone(bundle: Path) -> None:
    model, _ = opened(bundle)
    width, slots = model.pipeline.manifest.text.hidden_size, model.limits.max_sequence_length
    with pytest.raises(AssertionError):
        model.pipeline.backend.language.step(np.ones((1, 2, width), np.float32), np.array([slots - 1]), np.array([1]))
    assert not any(array.any() for array in arrays(model))
