"""Prompts against transformers' own processor: the same ids around the same places, for texts of any script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoTokenizer, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from hired_runtime.prompt import PromptTemplate, question
from tests.tiny.checkpoints import load_processor, write_checkpoint
from tests.tiny.tokenizers import write_tokenizer

TOKENS_PER_PICTURE = 4
PICTURE = Image.new("RGB", (28, 28))
STRING_ONLY = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}answer:"
WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}{% for p in m['content'] %}{{ p.text or '<image>' }}{% endfor %}{% endfor %}"
)
SETUPS = [
    ("llama", "vicuna"),
    ("llama", "mistral"),
    ("llama", "chatml"),
    ("llama", WITH_BOS),
    ("llama-legacy", "vicuna"),
    ("llama-legacy", "mistral"),
    ("qwen", "vicuna"),
    ("qwen", "chatml"),
]
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Setup:
    ours: PromptTemplate
    theirs: Any


def set_up(folder: Path, style: Any, template: str) -> Setup:
    write_tokenizer(folder, style, template)
    # With it transformers takes tokenizer.json as it is, which is what it does for every LLaVA checkpoint.
    (folder / "config.json").write_text('{"model_type": "llava"}')
    theirs = LlavaProcessor(
        image_processor=LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=(folder / "chat_template.jinja").read_text(),
        num_additional_image_tokens=1,
    )
    return Setup(PromptTemplate.open(folder), theirs)


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: "-".join(setup)[:20])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return set_up(tmp_path_factory.mktemp("tokenizer"), *request.param)


@pytest.fixture(scope="module")
def string_only(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return set_up(tmp_path_factory.mktemp("tokenizer"), "llama", STRING_ONLY)


def expected(theirs: Any, messages: list[dict[str, Any]]) -> tuple[list[int], tuple[int, ...]]:
    with_pictures = [
        {**message, "content": [{**part, "image": PICTURE} if part["type"] == "image" else part for part in parts]}
        if isinstance(parts := message["content"], list)
        else message
        for message in messages
    ]
    batch = theirs.apply_chat_template(with_pictures, tokenize=True, add_generation_prompt=True, return_dict=True)
    return without_pictures(theirs, batch)


def without_pictures(theirs: Any, batch: Any) -> tuple[list[int], tuple[int, ...]]:
    """Their ids with each picture's run of placeholders taken out, and where the runs were."""
    ids = np.asarray(batch["input_ids"][0])
    positions = np.flatnonzero(ids == theirs.image_token_id)
    starts = positions[::TOKENS_PER_PICTURE]
    assert (positions == (starts[:, None] + np.arange(TOKENS_PER_PICTURE)).ravel()).all()
    splices = starts - TOKENS_PER_PICTURE * np.arange(len(starts))
    return ids[ids != theirs.image_token_id].tolist(), tuple(splices.tolist())


def assert_equal(setup: Setup, messages: list[dict[str, Any]]) -> None:
    prompt = setup.ours.render(messages)
    assert (prompt.ids.tolist(), prompt.splices) == expected(setup.theirs, messages)


letters = st.one_of(st.sampled_from("ae stW \n\t<>|/▁é你🎉'0"), st.characters(exclude_categories=["Cs"]))
texts = st.text(letters, min_size=1, max_size=40).filter(lambda text: not any(token in text for token in SPECIAL))
text_parts = texts.map(lambda text: {"type": "text", "text": text})
pictures = st.just({"type": "image"})


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": [draw(text_parts)]})
    for turn in range(draw(st.integers(1, 3))):
        if turn:
            messages.append({"role": "assistant", "content": [draw(text_parts)]})
        # A single text: two side by side could together spell a special token, which only ours keeps apart.
        before, after = draw(st.lists(pictures, max_size=2)), draw(st.lists(pictures, max_size=1))
        messages.append({"role": "user", "content": [*before, draw(text_parts), *after]})
    return messages


@settings(max_examples=25, deadline=None)
@given(messages=conversations())
def test_conversations(setup: Setup, messages: list[dict[str, Any]]) -> None:
    assert_equal(setup, messages)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_question(setup: Setup, count: int) -> None:
    assert_equal(setup, question("What is  shown in this picture?\n", count))


@settings(max_examples=25, deadline=None)
@given(messages=conversations())
def test_the_guarded_way_gives_the_same_ids(setup: Setup, messages: list[dict[str, Any]]) -> None:
    """One literal special token is enough to guard all texts; nothing else about the ids may change by that."""
    plain = setup.ours.render(messages)
    with patch.object(setup.ours._literals, "hide", lambda text, mark: f"{mark}{mark}{text}"):
        guarded = setup.ours.render(messages)
    assert guarded.ids.tolist() == plain.ids.tolist()
    assert guarded.splices == plain.splices


@settings(max_examples=25, deadline=None)
@given(text=texts)
def test_template_that_takes_only_strings(string_only: Setup, text: str) -> None:
    prompt = string_only.ours.render(question(text, 2))
    theirs = string_only.theirs
    rendered = theirs.apply_chat_template([{"role": "user", "content": f"<image>\n<image>\n{text}"}])
    batch = theirs(text=rendered, images=[PICTURE, PICTURE], add_special_tokens=False)
    assert (prompt.ids.tolist(), prompt.splices) == without_pictures(theirs, batch)


@pytest.mark.parametrize("text", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("layout", ["v4", "v5"])
def test_files_of_a_checkpoint(tmp_path: Path, layout: Any, text: Any) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", "llava_next", text, layout=layout)
    processor = load_processor(folder)
    messages = question("What is shown in this picture?")
    messages[0]["content"][0]["image"] = PICTURE
    batch = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)
    theirs = np.asarray(batch["input_ids"][0])
    prompt = PromptTemplate.open(folder).render(messages, 1)
    assert prompt.ids.tolist() == theirs[theirs != processor.image_token_id].tolist()
    assert prompt.splices == (int(np.argmax(theirs == processor.image_token_id)),)
