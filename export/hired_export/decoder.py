"""The one torch decoder that every language graph comes from: Llama, Mistral and Qwen2, differing only in data.

It is built from fake tensors (meta storage): it has shapes and names, never weights. Parameters carry the checkpoint's
names below `model.`, but matrices are stored (in, out), as ONNX MatMul reads them. Operators that ONNX standardised
late (RotaryEmbedding, Attention, TensorScatter) are emitted by name, so this module cannot be run eagerly: what it
means is proved after export, in ONNX Runtime, against transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hired_export.ops import Projection, onnx_op, parameter, reshape


@dataclass(frozen=True)
class DecoderShape:
    """What distinguishes one supported text model from another.

    Sizes are in elements. `qkv_bias`, `o_bias` and `mlp_bias` say which projections have a bias; `positions` is the
    length of the rotary tables, the model's full trained length and not the cache's.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    rms_epsilon: float
    positions: int
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    head_parts: int = 1
    """MatMuls that the LM head is split into, by rows of the vocabulary: see `LMHead`."""


class RMSNorm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = parameter(size)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return onnx_op("RMSNormalization", (x, self.weight), x.shape, version=23, axis=-1, epsilon=self.epsilon)


class SelfAttention(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = Projection(shape.hidden_size, queries, shape.qkv_bias)
        self.k_proj = Projection(shape.hidden_size, keys, shape.qkv_bias)
        self.v_proj = Projection(shape.hidden_size, keys, shape.qkv_bias)
        self.o_proj = Projection(queries, shape.hidden_size, shape.o_bias)

    def split_heads(self, x: Tensor, heads: int) -> Tensor:  # (B, S, heads * Dh) -> (B, heads, S, Dh)
        return reshape(x, heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor], step: Step, past: tuple[Tensor, Tensor]) -> Any:
        def rotate(t: Tensor) -> Tensor:
            return onnx_op("RotaryEmbedding", (t, *tables, step.position_ids), t.shape, version=23)

        def write(cache: Tensor, update: Tensor) -> Tensor:
            inputs = (cache, update, step.write_indices)
            return onnx_op("TensorScatter", inputs, cache.shape, version=24, axis=-2, mode="linear")

        queries = rotate(self.split_heads(self.q_proj(x), self.heads))
        keys = write(past[0], rotate(self.split_heads(self.k_proj(x), self.kv_heads)))
        values = write(past[1], self.split_heads(self.v_proj(x), self.kv_heads))
        mixed = onnx_op("Attention", (queries, keys, values, step.attention_mask), queries.shape, version=23)
        merged = reshape(mixed.transpose(1, 2), self.heads * self.head_dim)  # (B, S, H * Dh)
        return self.o_proj(merged), keys, values


class GatedMLP(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.gate_proj = Projection(shape.hidden_size, shape.intermediate_size, shape.mlp_bias)
        self.up_proj = Projection(shape.hidden_size, shape.intermediate_size, shape.mlp_bias)
        self.down_proj = Projection(shape.intermediate_size, shape.hidden_size, shape.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_epsilon)
        self.self_attn = SelfAttention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_epsilon)
        self.mlp = GatedMLP(shape)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor], step: Step, past: tuple[Tensor, Tensor]) -> Any:
        attention, keys, values = self.self_attn(self.input_layernorm(x), tables, step, past)
        x = x + attention
        return x + self.mlp(self.post_attention_layernorm(x)), keys, values


@dataclass(frozen=True)
class Step:
    """Where the new tokens stand: position_ids (B, S), attention_mask (B, 1, S, M), write_indices (B)."""

    position_ids: Tensor
    attention_mask: Tensor
    write_indices: Tensor


class LMHead(nn.ModuleList):
    """The LM head as several products: JetPack 6's builder wants contiguous memory for each one's weight at a time."""

    def __init__(self, shape: DecoderShape) -> None:
        rows = head_rows(shape.vocab_size, shape.head_parts)
        super().__init__(Projection(shape.hidden_size, stop - start, False) for start, stop in rows)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self], dim=-1)


def head_rows(vocab_size: int, parts: int) -> list[tuple[int, int]]:
    """[start, stop) of each part's rows of the vocabulary, as equal as can be."""
    bounds = [vocab_size * i // parts for i in range(parts + 1)]
    return list(pairwise(bounds))


class Decoder(nn.Module):
    """inputs_embeds (B, S, D) and a static cache (B, G, M, Dh) a layer -> fp32 logits (B, V) of the last token only."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_epsilon)
        self.lm_head = LMHead(shape) if shape.head_parts > 1 else Projection(shape.hidden_size, shape.vocab_size, False)
        self.rotary_cos = parameter(shape.positions, shape.head_dim // 2)
        self.rotary_sin = parameter(shape.positions, shape.head_dim // 2)

    def forward(
        self,
        inputs_embeds: Tensor,  # (B, S, D)
        position_ids: Tensor,  # (B, S) int64
        attention_mask: Tensor,  # (B, 1, S, M) bool, True = may be seen
        write_indices: Tensor,  # (B) int64, first cache slot of this step
        last_token: Tensor,  # (B) int64, index in S of each row's last real token
        past: list[Tensor],  # 2 L caches (B, G, M, Dh): key, value of layer 0, ...
    ) -> tuple[Tensor, ...]:
        step = Step(position_ids, attention_mask, write_indices)
        tables = (self.rotary_cos, self.rotary_sin)
        x, present, boundaries = inputs_embeds, [], []
        for i, layer in enumerate(self.layers):
            x, keys, values = layer(x, tables, step, (past[2 * i], past[2 * i + 1]))
            present += [keys, values]
            boundaries.append(x)
        batch, width = x.shape[0], x.shape[2]
        last = onnx_op("GatherND", (x, last_token.unsqueeze(1)), (batch, width), version=13, batch_dims=1)
        return (self.lm_head(self.norm(last)).float(), *present, *boundaries)
