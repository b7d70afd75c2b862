"""What a synthetic checkpoint has in place of a tokenizer, a chat template and a picture processor's config.

The tokenizer has the model's vocabulary size and the image token at the config's id: special tokens, 256 bytes, the
printable characters, then made-up words. Text is cut into characters, so a prompt takes several times the tokens that
a real tokenizer makes of it; every id decodes to something. The template has the form of the family's own.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from hired_edge.errors import CheckpointError
from hired_edge.planner.shapes import ModelShape

UNKNOWN, BEGIN, END, IMAGE = "<unk>", "<s>", "</s>", "<image>"
AROUND = "<img>", "</img>"
"""Before and behind a picture, in families that have such tokens."""
_PICTURES = "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
_TEXTS = "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
TEMPLATES = {
    "llama": "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    + _PICTURES
    + _TEXTS
    + "{{ ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    "mistral": "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' }}"
    + _TEXTS
    + "{{ eos_token }}{% else %}{{ '[INST] ' }}"
    + _PICTURES
    + _TEXTS
    + "{{ ' [/INST]' }}{% endif %}{% endfor %}",
    "qwen2": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    + _PICTURES
    + _TEXTS
    + "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "phi3": "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}"
    + _PICTURES
    + _TEXTS
    + "{{ '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
}
"""Text model -> template, in the form of Vicuna, Mistral-Instruct, ChatML and Phi-3."""


def write(folder: Path, shape: ModelShape, image_token_id: object) -> None:
    """Writes tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json and
    preprocessor_config.json into `folder`.

    Raises:
        CheckpointError: a vocabulary too small to hold all bytes, or an image token that is not in it.
    """
    from hired_export.families import FAMILIES  # which read checkpoints, and so what this writes

    family = FAMILIES[shape.family]
    around = dict(zip(family.around, AROUND, strict=True)) if family.around else {}
    tokenizer = _tokenizer(shape.text.vocab_size, image_token_id, tuple(around.values()))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN, "image_token": IMAGE, **around}
    _write_json(folder / "tokenizer_config.json", {"add_bos_token": True, "add_eos_token": False, **names})
    (folder / "chat_template.jinja").write_text(TEMPLATES[shape.text.model_type], encoding="utf-8")
    ends = {name: tokenizer.token_to_id(token) for name, token in (("bos_token_id", BEGIN), ("eos_token_id", END))}
    _write_json(folder / "generation_config.json", ends)
    _write_json(folder / "preprocessor_config.json", family.stand_in_processor(shape.tiling))


def _tokenizer(size: int, image_token_id: object, around: tuple[str, ...]) -> Tokenizer:
    own = [UNKNOWN, BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *string.printable[:94], *around]
    if type(image_token_id) is not int or not len(own) <= image_token_id < size:
        raise CheckpointError(
            f"config.json says image_token_index {str(image_token_id)[:40]} and vocab_size {size}",
            expected=f"an image token from {len(own)} to the vocabulary's last, so that a stand-in tokenizer has room",
            fix="use another config.json",
        )
    tokens = own + [f"▁w{index}" for index in range(len(own), size)]
    tokens[image_token_id] = IMAGE
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [AddedToken(token, normalized=False, special=True) for token in (UNKNOWN, BEGIN, END, IMAGE, *around)]
    tokenizer.add_special_tokens(special)
    return tokenizer


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
