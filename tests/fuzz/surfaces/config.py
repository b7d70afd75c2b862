"""A checkpoint's config.json and preprocessor_config.json, as an export reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hired_edge.planner.published import PUBLISHED
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, read_spec
from hired_export.picture_rules import read_preprocessing
from hired_export.synthetic import MARKER
from tests.fuzz.mutators import json_text, parts
from tests.fuzz.surface import Feed, Surface

CONFIG, PREPROCESSOR, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
PADS = {
    "model_type": "llava_llama",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_hidden_size": 1024,
    "image_aspect_ratio": "pad",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "vocab_size": 32000,
}
"""An original layout."""


def seeds() -> dict[str, bytes]:
    side = {"height": 336, "width": 336}
    colours = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "resample": 3}
    clip = {"crop_size": side, "do_center_crop": True, "do_resize": True, "size": {"shortest_edge": 336}, **colours}
    kinds: dict[str, dict[str, Any]] = {
        "CLIPImageProcessor": clip,
        "LlavaNextImageProcessor": clip,
        "GotOcr2ImageProcessor": {
            "size": {"height": 448, "width": 448},
            "min_patches": 1,
            "max_patches": 12,
            **colours,
        },
    }
    rules = {kind: {**fields, "image_processor_type": kind} for kind, fields in kinds.items()}
    made = {
        "llava-1.5-7b": {PREPROCESSOR: rules["CLIPImageProcessor"]},
        "sharegpt4v-7b": {PROCESSOR: {"image_processor": rules["CLIPImageProcessor"]}},
        "llava-phi-3-mini": {PREPROCESSOR: rules["CLIPImageProcessor"]},
        "llava-v1.6-mistral-7b": {PREPROCESSOR: rules["LlavaNextImageProcessor"]},
        "llava-next-72b": {PREPROCESSOR: rules["LlavaNextImageProcessor"]},
        "internvl3-1b": {PREPROCESSOR: rules["GotOcr2ImageProcessor"]},
    }
    every = {name: {CONFIG: PUBLISHED[name].config, **files} for name, files in made.items()}
    every["original"] = {CONFIG: PADS, PREPROCESSOR: rules["CLIPImageProcessor"]}
    return {
        name: parts.joined({file: json.dumps(content).encode() for file, content in files.items()})
        for name, files in every.items()
    }


def opened(folder: Path) -> Feed:
    (folder / MARKER).write_text('{"seed": 0}')  # weights that are drawn when they are read, and are not

    def feed(data: bytes) -> None:
        parts.written(data, folder, (CONFIG, PREPROCESSOR, PROCESSOR))
        checkpoint = Checkpoint(folder)
        read_preprocessing(checkpoint, read_spec(checkpoint, AttentionChoice()).tiling)

    return feed


SURFACE = Surface(
    "config.json and preprocessor_config.json of a checkpoint",
    opened,
    seeds,
    parts.of(dict.fromkeys((CONFIG, PREPROCESSOR, PROCESSOR), json_text.of())),
    spend_mib=256,  # a model type that is named for the first time: transformers imports its module
)
