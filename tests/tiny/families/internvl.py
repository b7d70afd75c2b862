"""InternVL: five tiles of a picture and the whole of it, N = 4 visual tokens a tile of 16 patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, InternVLVisionConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from tests.tiny.families.family import TinyFamily
from tests.tiny.tokenizers import TokenizerFacts

MOST_TILES = 5
PICTURES = {
    "context_image_token": "<IMG_CONTEXT>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "video_token": "<video>",
}


def _fields(tokens: TokenizerFacts, vision: Mapping[str, Any]) -> dict[str, Any]:
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    return {"image_token_id": tokens.image_token_id, "image_seq_length": patches // 4}


def _picture(config: Any) -> dict[str, Any]:
    height, width = config.vision_config.image_size
    return {
        "size": {"height": height, "width": width},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "crop_to_patches": False,  # as the published files say: the processor turns it on
        "max_patches": MOST_TILES,
    }


def _of_processor(config: Any) -> dict[str, Any]:
    return {"image_seq_length": config.image_seq_length}


def _see(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, list[NDArray[np.float32]]]:
    """By the model's own way to features; the thumbnail, which is last there, first."""
    first = torch.roll(pixels, 1, dims=0)
    outputs = model.model.vision_tower(first, output_attentions=True)
    features = model.model.get_image_features(first, return_dict=True).pooler_output
    return features, [summed(attention[:, :, 0, 1:].numpy()) for attention in outputs.attentions]


def blocks(side: int) -> list[list[int]]:
    """The four patches of each token, found one by one, in a tile of `side` x `side` patches."""
    tokens = [(2 * row, 2 * column) for row in range(side // 2) for column in range(side // 2)]
    return [[(y + dy) * side + x + dx for dy in (0, 1) for dx in (0, 1)] for y, x in tokens]


def summed(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, H, patches) -> (T, H, N): of the four patches of each token."""
    side = int(maps.shape[2] ** 0.5)
    return np.stack([maps[:, :, block].sum(2) for block in blocks(side)], axis=2)


INTERNVL = TinyFamily(
    InternVLForConditionalGeneration,
    InternVLConfig,
    InternVLVisionConfig,
    InternVLProcessor,
    GotOcr2ImageProcessorPil,
    _fields,
    _picture,
    _of_processor,
    _see,
    vision={"attention_bias": True, "layer_norm_eps": 1e-6},
    pictures=PICTURES,
)
