"""Text models, a row each: what transformers' config classes fill in, and what the one decoder has to know of them.

Source: `configuration_{llama,mistral,qwen2,phi3}.py` and the modules beside them, of transformers 5.23;
tests/host/test_planner_config.py holds the defaults against those classes. The exporter reads the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A text model's facts: its class's defaults, and which of its projections have a bias (or the key that says so).

    `window_switch` is the key that must be true for `sliding_window` to hold; `fused` says which of the decoder's
    projections (below a layer, without ".weight") a checkpoint stores as one matrix, rows of the first part first.
    """

    defaults: Mapping[str, Any]
    qkv_bias: bool | str = False
    o_bias: bool | str = False
    mlp_bias: bool | str = False
    window_switch: str | None = None
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
    "phi3": Text(
        {
            **SEVEN_B,
            "vocab_size": 32064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "max_position_embeddings": 4096,
        },
        fused={
            "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
        },
    ),
}
