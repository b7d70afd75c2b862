"""A checkpoint's folder: the index, its shards, and what config.json says of packed matrices; every tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hired_edge.tensorfile import write_tensors
from hired_export.checkpoint import Checkpoint
from tests.fuzz.mutators import json_text, parts, safetensors
from tests.fuzz.surface import Feed, Surface

INDEX = "model.safetensors.index.json"
SHARDS = ("a.safetensors", "b.safetensors")
FILES = ("config.json", INDEX, "quantize_config.json", *SHARDS)
PACKED = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemm", "zero_point": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 8, "checkpoint_format": "gptq", "desc_act": False},
    "compressed": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {
                "weights": {"num_bits": 4, "type": "int", "group_size": 8, "strategy": "group", "symmetric": True}
            }
        },
    },
}


def _tensors(style: str) -> dict[str, np.ndarray]:
    """A matrix of 16 inputs and 8 outputs, packed."""
    layer, half = "language_model.model.layers.0.mlp.up_proj.", np.float16
    if style == "compressed":
        packed = {"weight_packed": np.ones((8, 2), np.int32), "weight_scale": np.ones((8, 2), half)}
        return {layer + name: value for name, value in (packed | {"weight_shape": np.array([8, 16])}).items()}
    rows, width = (16, 1) if style == "awq" else (2, 8)
    packed = {"qweight": np.ones((rows, width), np.int32), "qzeros": np.ones((2, 1), np.int32)}
    return {layer + name: value for name, value in (packed | {"scales": np.ones((2, 8), half)}).items()}


def seeds() -> dict[str, bytes]:
    import tempfile

    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plain = {
            "language_model.model.norm.weight": np.ones(4, np.float32),
            "lm_head.weight": np.ones((4, 4), np.float16),
        }
        write_tensors(folder / SHARDS[0], {"image_newline": np.ones(3, np.float32), "unknown": np.ones(2, np.int8)})
        for style in ("plain", *PACKED):
            tensors = plain if style == "plain" else _tensors(style)
            write_tensors(folder / SHARDS[1], tensors)
            weight_map = {"image_newline": SHARDS[0], **dict.fromkeys(tensors, SHARDS[1])}
            config = {"model_type": "llava"} | ({"quantization_config": PACKED[style]} if style in PACKED else {})
            files = {"config.json": json.dumps(config), INDEX: json.dumps({"metadata": {}, "weight_map": weight_map})}
            written = {name: text.encode() for name, text in files.items()}
            found[style] = parts.joined(written | {name: (folder / name).read_bytes() for name in SHARDS})
    files = parts.split(found["gptq"]) | {
        "config.json": b"{}",
        "quantize_config.json": json.dumps(PACKED["gptq"]).encode(),
    }
    return found | {"older": parts.joined(files)}


def opened(folder: Path) -> Feed:
    def feed(data: bytes) -> None:
        parts.written(data, folder, FILES)
        for tensor in Checkpoint(folder).tensors.values():
            if tensor.shape:  # nothing reads one without axes: every shape is held against config.json first
                tensor.rows(0, tensor.shape[0])

    return feed


_json, _shard = json_text.of(), safetensors.mutated
SURFACE = Surface(
    "a checkpoint's index, shards and quantization_config",
    opened,
    seeds,
    parts.of({**dict.fromkeys(FILES[:3], _json), **dict.fromkeys(SHARDS, _shard)}),
)
