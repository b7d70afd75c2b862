"""The whole path against transformers, in fp32: picture and prompt in, logits of every step and greedy tokens out.

At 100 % the reference is transformers' model run by its own processor; below, its language model fed with the selected
rows of its own vision features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hired_edge.bundle import Bundle
from hired_edge.errors import CheckpointError, LimitError
from hired_edge.packing import NEWLINES
from hired_edge.selection import select
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import export
from hired_export.families import AttentionChoice, read_spec
from hired_runtime.prompt import question
from tests.host.bundles import LENGTH, PARITY, Bundles, options
from tests.host.reference import TOLERANCE, Measure, Reference, opened, picture, scaled, taken
from tests.tiny.checkpoints import write_checkpoint
from tests.tiny.pictures import TABLE

References = Callable[[str], Reference]
PROMPT = "What is shown in this picture?"
NEW_TOKENS = 20
RANDOM_SIZES = [tuple(map(int, size)) for size in np.random.default_rng(7).integers(1, 400, (6, 2))]


@pytest.mark.parametrize("name", PARITY)
def test_answers_at_100_percent(name: str, bundles: Bundles, references: References, measure: Measure) -> None:
    model, recorder = opened(bundles(name).bundle)
    reference = references(name)
    for size in ((107, 80), (30, 170), (56, 56)):
        image = picture(*size)
        answer = model.ask(PROMPT, [image], max_new_tokens=NEW_TOKENS)
        inputs = reference.inputs(question(PROMPT, 1), [image])
        assert sum(s.visual_tokens for s in answer.selections) == reference.placeholders(inputs)
        assert answer.tokens == reference.generate(inputs, NEW_TOKENS)
        got, expected = taken(recorder), reference.logits(inputs, answer.tokens)
        assert measure(f"{name} {size}", got, expected) <= TOLERANCE
        assert 0.5 < expected.std() < 50, "logits of natural scale, or the tolerance means nothing"


@pytest.mark.parametrize("name", ["next-llama", "llava-llama"])
def test_every_picture_size(name: str, bundles: Bundles, references: References, measure: Measure) -> None:
    model, recorder = opened(bundles(name).bundle)
    reference = references(name)
    got, expected = [], []
    for size in [*(scaled(*size) for size in TABLE), *RANDOM_SIZES, (1, 1)]:
        image = picture(*size)
        answer = model.ask(PROMPT, [image], max_new_tokens=1)
        inputs = reference.inputs(question(PROMPT, 1), [image])
        (selection,) = answer.selections
        assert selection.visual_tokens == reference.placeholders(inputs), size
        got.append(taken(recorder))
        expected.append(reference.logits(inputs, answer.tokens))
    assert measure(f"{name} prefill, {len(got)} sizes", np.concatenate(got), np.concatenate(expected)) <= TOLERANCE


CASES = [
    ("next-llama", policy, budget, newlines)
    for policy in ("hired", "hired-2024")
    for budget in ("10%", "33.3%", 37)
    for newlines in NEWLINES
] + [("llava-llama", policy, budget, None) for policy in ("hired", "hired-2024") for budget in ("20%", 5)]


@pytest.mark.parametrize(("name", "policy", "budget", "newlines"), CASES)
def test_answers_at_lower_budgets(
    name: str, policy: str, budget: Any, newlines: str, bundles: Bundles, references: References, measure: Measure
) -> None:
    model, recorder = opened(bundles(name).bundle)
    reference = references(name)
    image = picture(150, 60, seed=3)
    asked = {"visual_tokens": budget, "policy": policy, "newlines": newlines}
    answer = model.ask(PROMPT, [image], max_new_tokens=NEW_TOKENS, **asked)
    (selection,) = answer.selections
    inputs = reference.inputs(question(PROMPT, 1), [image])
    assert 0 < selection.visual_tokens <= selection.budget < reference.placeholders(inputs)

    maps = reference.vision(inputs)[1]
    vision = Bundle.open(bundles(name).bundle, verify=False).manifest.vision
    allocation, attention = (maps[layer].sum(1) for layer in (vision.allocation_layer, vision.selection_layer))
    (theirs,) = select([selection.tiling], [allocation], [attention], budget, policy=policy, newlines=newlines)
    assert selection.gather.tolist() == theirs.gather.tolist()

    got = taken(recorder)
    expected = reference.continued(reference.spliced(inputs, selection), answer.tokens)
    assert measure(f"{name} {policy} {budget} {newlines}", got, expected) <= TOLERANCE
    assert answer.tokens == expected.argmax(axis=1).tolist()


def test_two_pictures_and_several_turns(bundles: Bundles, references: References, measure: Measure) -> None:
    model, recorder = opened(bundles("next-llama").bundle)
    reference = references("next-llama")
    images = [picture(107, 80, seed=1), picture(50, 160, seed=2)]
    picture_part = {"type": "image"}
    apart = [
        {"role": "user", "content": [picture_part, {"type": "text", "text": "What is on the wall?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A clock."}]},
        {"role": "user", "content": [picture_part, {"type": "text", "text": "And here?"}]},
    ]
    for name, messages in {"in one turn": question("Compare.", 2), "in two turns": apart}.items():
        answer = model.chat(messages, images, max_new_tokens=NEW_TOKENS)
        inputs = reference.inputs(messages, images)
        assert sum(s.visual_tokens for s in answer.selections) == reference.placeholders(inputs)
        assert answer.tokens == reference.generate(inputs, NEW_TOKENS)
        assert measure(f"two pictures {name}", taken(recorder), reference.logits(inputs, answer.tokens)) <= TOLERANCE


def test_without_pictures(bundles: Bundles, references: References, measure: Measure) -> None:
    model, recorder = opened(bundles("next-llama").bundle)
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Who wrote this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
        {"role": "user", "content": [{"type": "text", "text": "When?"}]},
    ]
    answer = model.chat(messages, max_new_tokens=NEW_TOKENS)
    inputs = references("next-llama").inputs(messages, [])
    expected = references("next-llama").logits(inputs, answer.tokens)
    assert measure("text alone", taken(recorder), expected) <= TOLERANCE
    assert answer.tokens == expected.argmax(axis=1).tolist()


def test_a_sliding_window_counts(bundles: Bundles, references: References) -> None:
    """The windowed bundle equals transformers (above); transformers without the window says something else."""
    name = "next-mistral-window"
    window = Bundle.open(bundles(name).bundle).manifest.text.sliding_window
    assert window == 24
    reference = references(name)
    inputs = reference.inputs(question(PROMPT, 1), [picture(107, 80)])
    assert inputs["input_ids"].shape[1] > 3 * window
    windowed = reference.logits(inputs, [0])
    whole = Reference(bundles.checkpoint(name))
    whole.model.config.text_config.sliding_window = whole.model.model.language_model.config.sliding_window = None
    assert np.abs(whole.logits(inputs, [0]) - windowed).max() > 100 * TOLERANCE


def test_a_window_that_no_sequence_outgrows_is_none(bundles: Bundles) -> None:
    assert read_spec(Checkpoint(bundles.checkpoint("next-mistral")), AttentionChoice()).decoder.sliding_window == 4096
    assert Bundle.open(bundles("next-mistral").bundle).manifest.text.sliding_window is None


def test_a_window_in_some_layers_is_refused(tmp_path: Path) -> None:
    fields = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    write_checkpoint(tmp_path / "ck", "llava_next", "qwen2", text_config=fields)
    with pytest.raises(CheckpointError, match="sliding window of 24 in some layers only"):
        export(tmp_path / "ck", tmp_path / "out", options("next-llama"))
    assert not (tmp_path / "out").exists()


def test_dynamic_scaling_is_refused_beyond_the_trained_length(bundles: Bundles, tmp_path: Path) -> None:
    checkpoint = bundles.checkpoint("next-mistral")
    spec = read_spec(Checkpoint(checkpoint), AttentionChoice())
    assert spec.config.text_config.rope_parameters["rope_type"] == "dynamic"
    assert Bundle.open(bundles("next-mistral").bundle).manifest.limits.max_sequence_length == LENGTH
    longer = replace(options("next-mistral"), max_new_tokens=41 + LENGTH - 288)
    with pytest.raises(LimitError, match=rf"{LENGTH + 64}.*{LENGTH}"):
        export(checkpoint, tmp_path / "out", longer)
    assert not (tmp_path / "out").exists()


def test_rotary_scaling_counts(bundles: Bundles, references: References) -> None:
    """Each scaled bundle equals transformers (above); here, that the scaling changes transformers' answer at all."""
    for name in ("next-qwen2", "llava-llama"):
        reference = references(name)
        inputs = reference.inputs(question(PROMPT, 1), [picture(107, 80)])
        rotary = reference.model.model.language_model.rotary_emb
        scaled_frequencies = rotary.inv_freq
        expected = reference.logits(inputs, [0])
        width, theta = 2 * len(scaled_frequencies), rotary.config.rope_parameters["rope_theta"]
        rotary.inv_freq = theta ** -(torch.arange(0, width, 2) / width)
        try:
            assert np.abs(reference.logits(inputs, [0]) - expected).max() > 100 * TOLERANCE
        finally:
            rotary.inv_freq = scaled_frequencies
