"""Text models of tiny checkpoints, a row each: transformers' class, and the tokenizer that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import LlamaConfig, MistralConfig, Phi3Config, Qwen2Config

from tests.tiny.tokenizers import Style


@dataclass(frozen=True)
class TinyText:
    """One text model. `fields`: of its config, where a checkpoint says nothing else; `style` and `template` as
    `write_tokenizer` has them."""

    config: Any
    style: Style
    template: str
    fields: Mapping[str, Any] = field(default_factory=dict)


TEXTS: dict[str, TinyText] = {
    "llama": TinyText(LlamaConfig, "llama", "vicuna", {"num_key_value_heads": 4}),
    "mistral": TinyText(MistralConfig, "llama", "mistral", {"num_key_value_heads": 2, "sliding_window": None}),
    "qwen2": TinyText(Qwen2Config, "qwen", "chatml", {"num_key_value_heads": 2}),
    "phi3": TinyText(Phi3Config, "llama", "phi3", {"num_key_value_heads": 2, "pad_token_id": None}),
}
