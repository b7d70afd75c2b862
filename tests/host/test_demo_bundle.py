"""demo/bundle is what demo/checkpoint exports to, small, and answers as transformers does."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from PIL import Image

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import TASKS, sample
from demo.training.bundle import BUNDLE, CHECKPOINT, make
from hired_runtime.prompt import question
from tests.host.committed import check_measured, check_same_bytes, size
from tests.host.reference import Reference

MAX_BYTES = 15_000_000


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    make(folder)
    return folder


def test_the_checkpoint_exports_to_the_committed_bytes(remade: Path) -> None:
    check_same_bytes(BUNDLE, remade)


def test_measured_outputs_agree(remade: Path) -> None:
    check_measured(BUNDLE, remade, tolerance=1e-4)


def test_the_bundle_is_small() -> None:
    assert size(BUNDLE) < MAX_BYTES


def test_transformers_gives_the_same_answers_at_full_budget() -> None:
    """Pictures and prompts through transformers' own processor, greedy decoding through its own loop."""
    reference, model = Reference(CHECKPOINT), hired_runtime.open(BUNDLE)
    for number in range(4):
        scene = compose(1002, number)
        with Image.open(io.BytesIO(encode(scene))) as file:
            picture = file.convert("RGB")
        for each in sample(random.Random(number), scene, dict.fromkeys(TASKS, 1.0), 4):
            inputs = reference.inputs(question(each.prompt, 1), [picture])
            answer = model.ask(each.prompt, [picture], visual_tokens="100%")
            assert answer.selections[0].visual_tokens == reference.placeholders(inputs)
            assert answer.tokens == reference.generate(inputs, count=16)
