"""The decoder that a config's `text_config` describes, and its rotary tables.

Adding a text model that differs by data alone is one row of `hired_edge.planner.text_models.TEXT_MODELS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hired_edge.planner.text_models import TEXT_MODELS
from hired_edge.strict import one_line
from hired_export.decoder import DecoderShape
from hired_export.families.family import require, require_positive

ROPE_TYPES = ("default", "linear", "llama3", "dynamic")
TEXT_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
"""Fields of text_config that say 1 or more."""
MOST_POSITIONS = 2**24
"""Up to which float32, in which rotary angles are computed, counts one by one."""

_LARGEST_HEAD = 4096
"""Far above any model's (256), far below what a table of angles takes no memory for."""


def rotary_tables(text_config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, (positions, Dh / 2) float32, by transformers' own formulae for every scaling."""
    return _tables(text_config, torch.arange(text_config.max_position_embeddings))


def _tables(text_config: Any, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rotary = LlamaRotaryEmbedding(text_config)  # the text models share it
    cos, sin = rotary(torch.zeros(1), positions[None])
    half = cos.shape[-1] // 2  # the other half repeats the first
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def decoder_shape(text: Any) -> DecoderShape:
    """Raises CheckpointError for what the one decoder cannot be."""
    facts = TEXT_MODELS[text.model_type]
    require_positive("text_config", text, TEXT_SIZES)
    positions = text.max_position_embeddings
    require(positions <= MOST_POSITIONS, f"max_position_embeddings {positions}", f"at most {MOST_POSITIONS}")
    heads, kv_heads = text.num_attention_heads, text.num_key_value_heads
    require(heads % kv_heads == 0, f"{heads} heads for {kv_heads} kv heads", "a whole number of heads per kv head")

    def has(rule: bool | str) -> bool:
        return bool(getattr(text, rule)) if isinstance(rule, str) else rule

    _check_rotary(text)
    require(text.hidden_act == "silu", f"hidden_act {text.hidden_act!r}", "silu")
    head_dim = _head_dim(text)
    _check_angles(text)
    return DecoderShape(
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=text.vocab_size,
        rms_epsilon=text.rms_norm_eps,
        positions=positions,
        qkv_bias=has(facts.qkv_bias),
        o_bias=has(facts.o_bias),
        mlp_bias=has(facts.mlp_bias),
        sliding_window=_sliding_window(text),
    )


def _check_rotary(text: Any) -> None:
    rope = text.rope_parameters
    rope_type = rope.get("rope_type", "default")
    if rope_type == "longrope":
        got = "rotary scaling 'longrope', which changes every angle as the prompt grows"
        require(False, got, f"{', '.join(ROPE_TYPES)} (of Phi-3, the models of 4k positions)")
    require(rope_type in ROPE_TYPES, f"rotary scaling {rope_type!r}", ", ".join(ROPE_TYPES))
    partial = rope.get("partial_rotary_factor", 1.0)
    require(partial == 1.0, f"partial_rotary_factor {partial}", "1.0")


def _check_angles(text: Any) -> None:
    """Those of the last position, which every value of `rope_parameters` has a part in."""
    reason = ""
    try:
        finite = all(
            table.isfinite().all() for table in _tables(text, torch.tensor([text.max_position_embeddings - 1]))
        )
    except Exception as error:  # transformers raises whatever values lead to that it does not check
        finite, reason = False, f" ({one_line(error)})"
    require(finite, f"rope_parameters {str(text.rope_parameters)[:120]}{reason}", "numbers that give angles")


def _head_dim(text: Any) -> int:
    if not hasattr(text, "head_dim"):  # null, where its class fills nothing in, is none to transformers either
        heads = text.num_attention_heads
        require(text.hidden_size % heads == 0, f"hidden_size {text.hidden_size}", f"a multiple of its {heads} heads")
        return _even(text.hidden_size // heads)
    return _even(text.head_dim)


def _even(head_dim: Any) -> int:
    even = type(head_dim) is int and 0 < head_dim <= _LARGEST_HEAD and head_dim % 2 == 0
    require(even, f"text_config.head_dim {head_dim}", f"a positive even number of at most {_LARGEST_HEAD}")
    return head_dim


def _sliding_window(text: Any) -> int | None:
    """The window that every layer shares; None where no layer has one."""
    window = getattr(text, "sliding_window", None)
    kinds: Sequence[str] = getattr(text, "layer_types", None) or []
    windowed = [kind == "sliding_attention" for kind in kinds] or [window is not None]
    if window is None or not any(windowed):
        return None
    require(all(windowed), f"a sliding window of {window} in some layers only", "the same attention in every layer")
    return window
