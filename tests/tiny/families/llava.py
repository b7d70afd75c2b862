"""LLaVA-1.5 and LLaVA-NeXT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from tests.tiny.families.family import TinyFamily
from tests.tiny.tokenizers import TokenizerFacts

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def _fields(tokens: TokenizerFacts, vision: Mapping[str, Any]) -> dict[str, Any]:
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    return {"image_token_index": tokens.image_token_id, "image_seq_length": patches}


def _next_fields(tokens: TokenizerFacts, vision: Mapping[str, Any]) -> dict[str, Any]:
    return {**_fields(tokens, vision), "image_grid_pinpoints": PINPOINTS}


def _picture(config: Any) -> dict[str, Any]:
    side = config.vision_config.image_size
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def _next_picture(config: Any) -> dict[str, Any]:
    return {**_picture(config), "image_grid_pinpoints": config.image_grid_pinpoints}


def _of_processor(config: Any) -> dict[str, Any]:
    return {
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }


def _see(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, list[NDArray[np.float32]]]:
    outputs = model.model.vision_tower(pixels, output_hidden_states=True, output_attentions=True)
    hidden = outputs.hidden_states[model.config.vision_feature_layer][:, 1:]
    maps = [attention[:, :, 0, 1:].numpy() for attention in outputs.attentions]
    return model.model.multi_modal_projector(hidden), maps


LLAVA = TinyFamily(
    LlavaForConditionalGeneration,
    LlavaConfig,
    CLIPVisionConfig,
    LlavaProcessor,
    LlavaImageProcessorPil,
    _fields,
    _picture,
    _of_processor,
    _see,
    vision={"projection_dim": 32},
)
LLAVA_NEXT = TinyFamily(
    LlavaNextForConditionalGeneration,
    LlavaNextConfig,
    CLIPVisionConfig,
    LlavaNextProcessor,
    LlavaNextImageProcessorPil,
    _next_fields,
    _next_picture,
    _of_processor,
    _see,
    vision={"projection_dim": 32},
)
