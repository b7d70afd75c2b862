"""Optimisation profiles, a build's progress and its last errors: what of the engine builder needs no TensorRT."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired_edge.budget import parse_budget
from hired_edge.errors import BundleError
from hired_edge.limits import derive_limits
from hired_runtime.trt.log import LastErrors, one_line
from hired_runtime.trt.profiles import (
    DECODE,
    PREFILL,
    fitting,
    language_profiles,
    longest_prompt,
    vision_profiles,
)
from hired_runtime.trt.progress import Phases
from tests.tiny.manifests import LLAVA_NEXT, example_text

TEXT = replace(example_text(), layers=2, kv_heads=3, head_dim=8, hidden_size=24, heads=6)
INPUTS = (
    "inputs_embeds",
    "position_ids",
    "attention_mask",
    "write_indices",
    "last_token",
    "past_key_values.0.key",
    "past_key_values.0.value",
    "past_key_values.1.key",
    "past_key_values.1.value",
)


def step_shapes(batch: int, tokens: int, slots: int) -> dict[str, tuple[int, ...]]:
    """What a step binds, written out by hand from the design's legend."""
    return {
        "inputs_embeds": (batch, tokens, 24),
        "position_ids": (batch, tokens),
        "attention_mask": (batch, 1, tokens, slots),
        "write_indices": (batch,),
        "last_token": (batch,),
        **dict.fromkeys(INPUTS[5:], (batch, 3, slots, 8)),
    }


@given(batch=st.integers(1, 8), prompt=st.integers(2, 200), row=st.integers(1, 8), tokens=st.integers(1, 201))
def test_each_step_within_the_limits_fits_a_profile_and_no_other_does(
    batch: int, prompt: int, row: int, tokens: int
) -> None:
    profiles = language_profiles(TEXT, INPUTS, batch=batch, prompt=prompt, max_sequence_length=256)
    expected = None if row > batch or tokens > prompt else DECODE if tokens == 1 else PREFILL
    assert fitting(profiles, step_shapes(row, tokens, 256)) == expected
    assert fitting(profiles, step_shapes(row, tokens, 192)) is None


def test_both_language_profiles_are_tuned_for_the_largest_shape() -> None:
    decode, prefill = language_profiles(TEXT, INPUTS, batch=4, prompt=100, max_sequence_length=128)
    assert {name: shapes.opt for name, shapes in decode.items()} == step_shapes(4, 1, 128)
    assert {name: shapes.max for name, shapes in prefill.items()} == step_shapes(4, 100, 128)
    assert {name: shapes.min for name, shapes in prefill.items()} == step_shapes(1, 1, 128)
    assert all(shapes.opt == shapes.max for shapes in prefill.values())


def test_a_graph_without_some_inputs_gets_profiles_without_them() -> None:
    inputs = tuple(name for name in INPUTS if name != "attention_mask")
    profiles = language_profiles(TEXT, inputs, batch=1, prompt=4, max_sequence_length=64)
    assert all(tuple(profile) == inputs for profile in profiles)


def test_an_input_that_is_none_of_a_decoders_is_refused() -> None:
    with pytest.raises(BundleError, match="'cross_attention'"):
        language_profiles(TEXT, (*INPUTS, "cross_attention"), batch=1, prompt=4, max_sequence_length=64)


@given(tiles=st.integers(1, 9))
def test_the_vision_profile_covers_one_tile_to_all(tiles: int) -> None:
    profiles = vision_profiles(336, tiles)
    for count in range(1, tiles + 1):
        assert fitting(profiles, {"pixel_values": (count, 3, 336, 336)}) == 0
    for shape in ((tiles + 1, 3, 336, 336), (1, 3, 336, 224), (1, 4, 336, 336)):
        assert fitting(profiles, {"pixel_values": shape}) is None
    assert profiles[0]["pixel_values"].opt == (tiles, 3, 336, 336)


def test_the_longest_prompt_is_all_that_may_be_asked_for_and_leaves_room_for_an_answer() -> None:
    limits = derive_limits(LLAVA_NEXT, [parse_budget("20%")], text_tokens=256, new_tokens=128)
    assert longest_prompt(limits, limits.max_sequence_length) == limits.visual_tokens + limits.text_tokens
    assert longest_prompt(limits, 64) == 63


def test_progress_of_nested_phases_rises_to_a_hundred() -> None:
    """Like a build of TensorRT-RTX 1.7.1: a root of 6 steps, with a phase of its own inside each."""
    phases, seen = Phases(), [0]
    phases.start("Building engine", None, 6)
    for step, (name, steps) in enumerate([("Cloning network graph", 68), ("Tactic selection", 3), ("Empty", 0)] * 2):
        phases.start(name, "Building engine", steps)
        assert phases.name == name
        for inner in range(steps):
            phases.step(name, inner)
            seen.append(phases.percent)
        phases.finish(name)
        phases.step("Building engine", step)
        seen.append(phases.percent)
        assert phases.percent == 100 * (step + 1) // 6
    phases.finish("Building engine")
    assert phases.percent == 100
    assert all(before <= after for before, after in pairwise(seen))
    assert len(set(seen)) > 20


@given(
    st.lists(
        st.tuples(st.sampled_from("asf"), st.sampled_from("xyz"), st.sampled_from("xyz"), st.integers(-1, 4)),
        max_size=30,
    )
)
def test_progress_never_falls_and_stays_a_percentage_whatever_is_reported(
    events: list[tuple[str, str, str, int]],
) -> None:
    phases, before = Phases(), 0
    for kind, name, parent, number in events:
        if kind == "a":
            phases.start(name, None if parent == name else parent, number)
        elif kind == "s":
            phases.step(name, max(0, number))
        else:
            phases.finish(name)
        assert before <= phases.percent <= 100
        before = phases.percent


def test_the_reason_of_a_failure_is_the_builders_own_error() -> None:
    """Two errors as TensorRT-RTX 1.7.1 logs them, recorded; the second is about cleaning up."""
    errors = LastErrors()
    assert errors.reason() == "no reason given"
    errors.add("IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error\n (input x is missing dimensions)")
    errors.add("[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime")
    assert errors.reason() == (
        "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (input x is missing dimensions)"
    )


@given(st.text(max_size=500))
def test_a_message_becomes_one_short_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 300
    assert line == " ".join(line.split()) or len(line) == 300
