"""Two small real tokenizers, with chat templates, written as a checkpoint on the Hub has them.

`llama`: byte-pair encoding over characters with byte fallback and "▁" for a space, as Llama 2 and Mistral have it.
`qwen`: byte-level byte-pair encoding with ChatML's special tokens, as Qwen 2 and Llama 3 have it.

Everything is written as plain JSON from the fixed text below, so the files are the same, byte for byte, on every
machine and with every version of the tokenizers library. Knows nothing about models; needs the standard library only.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tests.tiny.templates import TEMPLATES

Style = Literal["llama", "llama-legacy", "qwen"]

IMAGE_TOKEN = "<image>"
MERGES = 160

CORPUS = """
What is shown in this picture? Describe the picture in detail. How many people are in the image? The image shows a
small red house near the water, with three trees and a white fence. What colour is the car on the left? A black dog is
running on the green grass while two children are playing with a ball. Read the text on the sign. The sign says: open
from 9 to 17, closed on Sunday. There are 12 boxes on the table, 5 of them are blue and 7 are yellow. Is there a clock
on the wall? Yes, there is a clock, it shows a quarter past ten. Where was this photograph taken? In the middle of a
large city, at night, after the rain. You are a helpful assistant. A chat between a curious user and an assistant. The
assistant gives helpful, detailed, and polite answers to the user's questions. user assistant system USER ASSISTANT
INST Who wrote the number on the door? Please answer the question with a single word or phrase.
"""

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TokenizerFacts:
    """What a checkpoint's config.json repeats about its tokenizer.

    Attributes:
        size: the number of tokens, added ones included; the ids are 0..size-1.
        image_token_id: the id of what stands for a picture.
        bos_token_id: the id that begins a text, None where there is none.
        eos_token_id: the id that ends an answer.
        pad_token_id: the id of padding.
    """

    size: int
    image_token_id: int
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int


def write_tokenizer(
    folder: Path, style: Style, template: str | None = None, pictures: Mapping[str, str] | None = None
) -> TokenizerFacts:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja into `folder`.

    Args:
        folder: an existing folder.
        style: "llama" (the "▁" only before the first word, as Llama's tokenizer of today), "llama-legacy" (a "▁" after
            each special token too, as the files of 2023) or "qwen".
        template: a key of `TEMPLATES` or the template itself; "vicuna" for Llama and "chatml" for Qwen if None.
        pictures: names and strings of the special tokens around and for a picture, that for it first, for a family that
            has others than `<image>`.
    """
    tokenizer, config = (_qwen if style == "qwen" else _llama)(legacy=style == "llama-legacy")
    chosen = template or ("chatml" if style == "qwen" else "vicuna")
    image = _replace_image_token(tokenizer, config, pictures) if pictures else IMAGE_TOKEN
    written = TEMPLATES.get(chosen, chosen).replace(IMAGE_TOKEN, image)
    (folder / "chat_template.jinja").write_text(written, encoding="utf-8", newline="")
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", config)
    special = ("bos_token", "eos_token", "unk_token", "pad_token")
    _write_json(folder / "special_tokens_map.json", {name: config[name] for name in special if config.get(name)})

    ids = dict(tokenizer["model"]["vocab"]) | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    return TokenizerFacts(
        size=len(ids),
        image_token_id=ids[image],
        bos_token_id=ids.get(config["bos_token"]),
        eos_token_id=ids[config["eos_token"]],
        pad_token_id=ids[config["pad_token"]],
    )


def _replace_image_token(tokenizer: dict[str, Any], config: dict[str, Any], pictures: Mapping[str, str]) -> str:
    image, *others = pictures.values()
    added = tokenizer["added_tokens"]
    next(token for token in added if token["content"] == IMAGE_TOKEN)["content"] = image
    last = max(added[-1]["id"], *tokenizer["model"]["vocab"].values())
    added += _added_tokens({token: last + 1 + index for index, token in enumerate(others)})
    del config["image_token"]
    config |= {**pictures, "extra_special_tokens": dict(pictures), "added_tokens_decoder": _added_tokens_decoder(added)}
    return image


def _llama(*, legacy: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    words = tuple("▁" + word for word in CORPUS.split())
    reserved = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
    vocabulary, merges = _byte_pair_encoding(words, reserved, tuple(sorted(set("".join(words)))))
    added = _added_tokens({"<unk>": 0, "<s>": 1, "</s>": 2, IMAGE_TOKEN: len(vocabulary), "<pad>": len(vocabulary) + 1})
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    prepend = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": prepend} if legacy else None,
        "pre_tokenizer": None if legacy else spaces,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<s>", "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": _bpe_model(vocabulary, merges, unk_token="<unk>", byte_fallback=True),
    }
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": _added_tokens_decoder(added),
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "extra_special_tokens": {"image_token": IMAGE_TOKEN},
        "image_token": IMAGE_TOKEN,
        "legacy": legacy,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<pad>",
        "padding_side": "left",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
    return tokenizer, config


def _qwen(*, legacy: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    assert not legacy
    of_byte = _byte_letters()
    split_words = re.findall(r" ?\w+|[^\w\s]|\n", CORPUS)
    words = tuple("".join(of_byte[byte] for byte in word.encode()) for word in split_words)
    vocabulary, merges = _byte_pair_encoding(words, (), tuple(sorted(of_byte.values())))
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", IMAGE_TOKEN)
    added = _added_tokens({name: len(vocabulary) + index for index, name in enumerate(names)})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": _bpe_model(vocabulary, merges, unk_token=None, byte_fallback=False),
    }
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": _added_tokens_decoder(added),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "extra_special_tokens": {"image_token": IMAGE_TOKEN},
        "image_token": IMAGE_TOKEN,
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    return tokenizer, config


@cache
def _byte_pair_encoding(
    words: tuple[str, ...], reserved: tuple[str, ...], alphabet: tuple[str, ...]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges of `words`: the most frequent pair first, the alphabetically first of equals."""
    counts = Counter(words)
    pieces = {word: list(word) for word in counts}
    vocabulary = {token: index for index, token in enumerate([*reserved, *alphabet])}
    merges: list[tuple[str, str]] = []
    for _ in range(MERGES):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        vocabulary.setdefault("".join(best), len(vocabulary))
        pieces = {word: _merge(parts, best) for word, parts in pieces.items()}
    return vocabulary, merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _byte_letters() -> dict[int, str]:
    """A printable character for every byte (GPT-2's table): printable Latin-1 as itself, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + rank) for rank, byte in enumerate(others)}


def _bpe_model(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], *, unk_token: str | None, byte_fallback: bool
) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unk_token,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": byte_fallback,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": [" ".join(pair) for pair in merges],
    }


def _added_tokens(ids: dict[str, int]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": index, "content": content, **flags} for content, index in ids.items()]


def _added_tokens_decoder(added: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in added}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="")
