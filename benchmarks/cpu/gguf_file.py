"""A GGUF file of a Llama's shape with random weights, as llama.cpp's own quantiser stores Q4_0: matrices in Q4_0, the
output in Q6_K, norms in F32.

    python -m benchmarks.cpu.gguf_file OUT '{"layers": 3, "hidden": 4096, ...}'

Runs in the peers' environment (the PyPI package gguf). Blocks are random bytes with a scale of the right size.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from gguf import (  # pyright: ignore[reportMissingImports]
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    TokenType,
)
from numpy.typing import NDArray

Q4_0_BLOCK, Q6_K_BLOCK = 32, 256
"""Weights a block. A block of Q4_0 is an fp16 scale and 16 bytes; of Q6_K, 192 bytes, 16 int8 scales, an fp16 one."""


def q4_0(random: np.random.Generator, rows: int, inputs: int) -> NDArray[np.uint8]:
    """(rows, bytes)"""
    blocks = rows * inputs // Q4_0_BLOCK
    data = np.frombuffer(random.bytes(18 * blocks), np.uint8).reshape(blocks, 18).copy()
    data[:, :2] = np.frombuffer(np.float16(1 / (4.6 * inputs**0.5)).tobytes(), np.uint8)
    return data.reshape(rows, -1)


def q6_k(random: np.random.Generator, rows: int, inputs: int) -> NDArray[np.uint8]:
    """(rows, bytes)"""
    blocks = rows * inputs // Q6_K_BLOCK
    data = np.frombuffer(random.bytes(210 * blocks), np.uint8).reshape(blocks, 210).copy()
    data[:, 192:208] = 1
    data[:, 208:] = np.frombuffer(np.float16(1 / (18.5 * inputs**0.5)).tobytes(), np.uint8)
    return data.reshape(rows, -1)


def write(out: str, shape: dict[str, Any]) -> None:
    """Writes a file of a shape: layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, positions."""
    random = np.random.default_rng(0)
    hidden, vocabulary = shape["hidden"], shape["vocabulary"]
    writer = GGUFWriter(out, "llama")
    writer.add_context_length(shape["positions"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["intermediate"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0)
    _add_words(writer, vocabulary)

    def matrix(name: str, rows: int, inputs: int) -> None:
        writer.add_tensor(name, q4_0(random, rows, inputs), raw_dtype=GGMLQuantizationType.Q4_0)

    matrix("token_embd.weight", vocabulary, hidden)
    for i in range(shape["layers"]):
        queries, keys = shape["heads"] * shape["head_dim"], shape["kv_heads"] * shape["head_dim"]
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{norm}.weight", np.ones(hidden, np.float32))
        matrix(f"blk.{i}.attn_q.weight", queries, hidden)
        matrix(f"blk.{i}.attn_k.weight", keys, hidden)
        matrix(f"blk.{i}.attn_v.weight", keys, hidden)
        matrix(f"blk.{i}.attn_output.weight", hidden, queries)
        matrix(f"blk.{i}.ffn_gate.weight", shape["intermediate"], hidden)
        matrix(f"blk.{i}.ffn_up.weight", shape["intermediate"], hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, shape["intermediate"])
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    writer.add_tensor("output.weight", q6_k(random, vocabulary, hidden), raw_dtype=GGMLQuantizationType.Q6_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_words(writer: GGUFWriter, count: int) -> None:
    """A vocabulary that loads: three special tokens, the 256 bytes, and words nobody needs."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"word{i}" for i in range(count - len(words))]
    types = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256]
    types += [TokenType.NORMAL] * (count - len(types))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * count)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


if __name__ == "__main__":
    write(sys.argv[1], json.loads(sys.argv[2]))
