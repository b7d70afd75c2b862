"""An mmproj file of llama.cpp: a CLIP tower's shape and a two-layer projector with random weights, in F16 or Q8_0.

    python -m benchmarks.vision.mmproj_file OUT F16 '{"layers": 23, "hidden": 1024, ...}'

Runs in the peers' environment (the PyPI package gguf). Keys, names of tensors and what stays in F32 are those that
llama.cpp's clip.cpp reads and its conversion/base.py writes: in Q8_0 the patches' convolution is in F32. Both files
have the same weights. It holds only the layers that are run: `feature_layer` counts from the tower's input.
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
)
from gguf.quants import quantize  # pyright: ignore[reportMissingImports]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, as in its preprocessor_config.json."""


def write(out: str, weights: str, shape: dict[str, Any]) -> None:
    """Writes a file.

    Args:
        out: the file.
        weights: of the matrices, "F16" or "Q8_0".
        shape: layers, hidden, intermediate, heads, image, patch (px), text (the projector's width), pinpoints (width,
            height, width, ...).
    """
    writer = GGUFWriter(out, "clip")
    writer.add_file_type(LlamaFileType[f"MOSTLY_{weights}"])
    _add_keys(writer, shape)
    _add_tensors(writer, GGMLQuantizationType[weights], shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_keys(writer: Any, shape: dict[str, Any]) -> None:
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_image_size(shape["image"])
    writer.add_vision_patch_size(shape["patch"])
    writer.add_vision_embedding_length(shape["hidden"])
    writer.add_vision_feed_forward_length(shape["intermediate"])
    writer.add_vision_projection_dim(shape["text"])
    writer.add_vision_head_count(shape["heads"])
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean(MEAN)
    writer.add_vision_image_std(STD)
    writer.add_vision_block_count(shape["layers"])
    writer.add_array("clip.vision.feature_layer", [shape["layers"]])  # without it, llama.cpp runs one layer less
    writer.add_array("clip.vision.image_grid_pinpoints", shape["pinpoints"])


def _add_tensors(writer: Any, kind: Any, shape: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    hidden, wide, text, patch = (shape[name] for name in ("hidden", "intermediate", "text", "patch"))

    def drawn(*sizes: int, scale: float = 0.02) -> np.ndarray:
        return random.standard_normal(sizes, np.float32) * np.float32(scale)

    def linear(name: str, rows: int, inputs: int) -> None:
        matrix = quantize(drawn(rows, inputs, scale=inputs**-0.5), kind)
        writer.add_tensor(f"{name}.weight", matrix, raw_dtype=kind)
        writer.add_tensor(f"{name}.bias", drawn(rows))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(hidden, np.float32))

    convolution = drawn(hidden, 3, patch, patch)
    half = kind == GGMLQuantizationType.F16
    writer.add_tensor("v.patch_embd.weight", convolution.astype(np.float16) if half else convolution)
    writer.add_tensor("v.class_embd", drawn(hidden))
    writer.add_tensor("v.position_embd.weight", drawn((shape["image"] // patch) ** 2 + 1, hidden))
    norm("v.pre_ln")
    for i in range(shape["layers"]):
        norm(f"v.blk.{i}.ln1")
        norm(f"v.blk.{i}.ln2")
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(f"v.blk.{i}.{part}", hidden, hidden)
        linear(f"v.blk.{i}.ffn_up", wide, hidden)
        linear(f"v.blk.{i}.ffn_down", hidden, wide)
    linear("mm.0", text, hidden)
    linear("mm.2", text, text)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
