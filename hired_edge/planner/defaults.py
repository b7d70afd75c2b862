"""What transformers' config classes fill in where a config.json leaves keys out, and what differs between families.

Source: `configuration_{llava,llava_next,llama,mistral,qwen2,clip}.py` of transformers 5.23;
tests/host/test_planner_config.py holds this against those classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLIP_L_336: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""The tower where a config has no `vision_config` at all, and the one that the original layouts name."""
CLIP: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@dataclass(frozen=True)
class Family:
    """A family's geometry, whether it has an `image_newline`, and the defaults of the keys at the top."""

    tiling: str
    newline: bool
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Text:
    """A text model's facts: its class's defaults, and which of its projections have a bias (or the key that says so).

    `window_switch` is the key that must be true for `sliding_window` to hold.
    """

    defaults: Mapping[str, Any]
    qkv_bias: bool | str = False
    o_bias: bool | str = False
    mlp_bias: bool | str = False
    window_switch: str | None = None


_TOP = {"vision_feature_layer": -2, "multimodal_projector_bias": True, "tie_word_embeddings": False}
FAMILIES = {
    "llava": Family("single", newline=False, defaults=_TOP),
    "llava_next": Family("anyres", newline=True, defaults={**_TOP, "image_grid_pinpoints": PINPOINTS}),
}
SEVEN_B = {"vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
TEXT_MODELS = {
    "llama": Text(
        {
            **SEVEN_B,
            "intermediate_size": 11008,
            "max_position_embeddings": 2048,
            "attention_bias": False,
            "mlp_bias": False,
        },
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        mlp_bias="mlp_bias",
    ),
    "mistral": Text(
        {
            **SEVEN_B,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
        }
    ),
    "qwen2": Text(
        {
            **SEVEN_B,
            "vocab_size": 151936,
            "intermediate_size": 22016,
            "num_key_value_heads": 32,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
        qkv_bias=True,
        window_switch="use_sliding_window",
    ),
}
