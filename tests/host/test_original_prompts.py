"""Prompts of original checkpoints: the words of the original code's conversations, encoded in pieces as it does."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from hired_edge.errors import CheckpointError
from hired_export.conversations import CONVERSATIONS, conversation, template_for
from hired_export.sentencepiece_model import converted, parse
from hired_runtime.prompt import PromptTemplate, question
from tests.tiny.original import write_sentencepiece
from tests.tiny.tokenizers import CORPUS, Style, write_tokenizer

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
LLAMA_3 = (
    "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language.<|eot_id|>"
)
# What Conversation.get_prompt() of the original code returns for a picture and "Hi", its answer "Yo", then "So".
PROMPTS = {
    "vicuna_v1": VICUNA + "USER: <image>\nHi ASSISTANT: Yo</s>USER: So ASSISTANT:",
    "mistral_instruct": "[INST] <image>\nHi [/INST] Yo </s>[INST] So [/INST]",
    "chatml_direct": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nHi<|im_end|>"
    "<|im_start|>assistant\nYo<|im_end|><|im_start|>user\nSo<|im_end|><|im_start|>assistant\n",
    "qwen_1_5": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nHi<|im_end|>\n"
    "<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\nSo<|im_end|>\n<|im_start|>assistant\n",
    "llava_llama_3": LLAMA_3 + "<|start_header_id|>user<|end_header_id|>\n\n<image>\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nSo<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
}
TALK = [
    *question("Hi"),
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "So"},
]
BY_MODE = {each.mode: each for each in CONVERSATIONS}


def open_prompt(folder: Path, mode: str, style: Style) -> PromptTemplate:
    write_tokenizer(folder, style)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template_for(BY_MODE[mode], tokenizer), newline="")
    return PromptTemplate.open(folder)


def pieces(prompt: PromptTemplate, text: str) -> list[int]:
    """The original code's tokenizer_image_token: every piece between pictures is encoded alone, one begin token."""
    parts = text.split("<image>")
    begin = prompt.tokenizer.encode("").ids
    return begin + [index for part in parts for index in prompt.tokenizer.encode(part, add_special_tokens=False).ids]


@pytest.mark.parametrize("mode", PROMPTS)
@pytest.mark.parametrize("style", ["llama", "llama-legacy", "qwen"])
def test_the_words_of_the_original_code(mode: str, style: Style, tmp_path: Path) -> None:
    prompt = open_prompt(tmp_path, mode, style)
    end = prompt.special_tokens["eos_token"]
    expected = PROMPTS[mode].replace("</s>", end)
    rendered = prompt.render(TALK, 1)
    assert rendered.ids.tolist() == pieces(prompt, expected)
    assert rendered.splices == (len(pieces(prompt, expected.split("<image>")[0])),)


def test_a_system_message_takes_the_place_of_the_conversations_own(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "Be brief."}, *question("Hi")]
    for mode, expected in {
        "vicuna_v1": "Be brief. USER: <image>\nHi ASSISTANT:",
        "mistral_instruct": "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nHi [/INST]",
        "chatml_direct": "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n<image>\nHi<|im_end|>"
        "<|im_start|>assistant\n",
    }.items():
        prompt = open_prompt(tmp_path, mode, "llama")
        assert prompt.render(talk, 1).ids.tolist() == pieces(prompt, expected)


@dataclass(frozen=True)
class Named:
    config: dict[str, Any]
    folder: str
    text: str
    mode: str | None


@pytest.mark.parametrize(
    "named",
    [
        Named({"model_type": "llava"}, "llava-v1.5-13b", "llama", "vicuna_v1"),
        Named({"model_type": "llava_llama"}, "llava-v1.6-vicuna-7b", "llama", "vicuna_v1"),
        Named({"model_type": "share4v"}, "mine", "llama", "vicuna_v1"),
        Named({"model_type": "llava"}, "models--Lin-Chen--ShareGPT4V-7B/snapshots/0a1b", "llama", "vicuna_v1"),
        Named({"model_type": "llava_mistral"}, "mine", "mistral", "mistral_instruct"),
        Named({"_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2"}, "mine", "llama", "mistral_instruct"),
        Named({"model_type": "llava"}, "llava-v1.6-34b", "llama", "chatml_direct"),
        Named({"model_type": "llava_llama"}, "llama3-llava-next-8b", "llama", "llava_llama_3"),
        Named({"model_type": "llava_qwen"}, "llava-next-72b", "qwen2", "qwen_1_5"),
        Named({"model_type": "llava_llama"}, "mine", "llama", None),
    ],
    ids=lambda named: named.folder,
)
def test_the_conversation_goes_by_the_names(named: Named, tmp_path: Path) -> None:
    found = conversation(named.config, tmp_path / named.folder, named.text)
    assert (found and found.mode) == named.mode


TEXTS = ["What is shown in this picture?", "  two  spaces\n\nand lines ", "é你🎉 ▁ 0", "", *CORPUS.strip().splitlines()]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_sentencepiece_model_gives_the_same_ids(legacy: bool, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama-legacy" if legacy else "llama")
    reference = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    path = write_sentencepiece(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    added = {token: reference.get_vocab()[token] for token in ("<image>", "<pad>")}
    if legacy:
        config["legacy"] = None  # as transformers 4 takes it
    ours = converted(parse(path.read_bytes(), "it"), config, added, "it")
    for text in (*TEXTS, "one<image>\ntwo</s>three"):
        ids = reference.encode(text).ids
        assert ours.encode(text).ids == ids
        assert ours.decode(ids) == reference.decode(ids)


def test_a_sentencepiece_model_without_a_first_space(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama")
    path = write_sentencepiece(tmp_path, first_space=False)
    for legacy in (False, True):
        ours = converted(parse(path.read_bytes(), "it"), {"legacy": legacy, "add_bos_token": False}, {}, "it")
        assert ours.decode(ours.encode("What is").ids) == "What is"
        assert "▁" not in ours.encode("What").tokens[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": 1}, "has model_type 1"),
        ({"precompiled_charsmap": b"abc"}, "has precompiled_charsmap True"),
        ({"remove_extra_whitespaces": True}, "has remove_extra_whitespaces True"),
        ({"escape_whitespaces": False}, "has escape_whitespaces False"),
    ],
)
def test_sentencepiece_models_of_other_kinds(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama")
    content = write_sentencepiece(tmp_path, **changes).read_bytes()
    with pytest.raises(CheckpointError, match=message):
        parse(content, "it")


@pytest.mark.parametrize("piece", [b"", b"\x08\x01", b"\x0d\x00\x00\x00\x00"], ids=["empty", "a number", "a float"])
def test_a_piece_without_text(piece: bytes) -> None:
    with pytest.raises(CheckpointError, match="it holds no SentencePiece model"):
        parse(b"\x0a" + bytes([len(piece)]) + piece, "it")


def test_added_tokens_that_do_not_follow(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama")
    model = parse(write_sentencepiece(tmp_path).read_bytes(), "it")
    with pytest.raises(CheckpointError, match="the added token '<pad>' has id 9000"):
        converted(model, {}, {"<pad>": 9000}, "it")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder, "llama")
    return write_sentencepiece(folder).read_bytes()


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_the_only_error_is_ours(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content)))
    spoiled = data.draw(
        st.sampled_from([content[:place], content[:place] + data.draw(st.binary(max_size=9)) + content[place:]])
    )
    with contextlib.suppress(CheckpointError):
        converted(parse(spoiled, "it"), {}, {}, "it")
