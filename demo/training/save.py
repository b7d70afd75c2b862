"""The trained model -> a checkpoint folder as the Hub has them: fp16 safetensors, tokenizer, template, processor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from demo.training.architecture import MEAN, PATCH, PINPOINTS, STD, TILE
from demo.training.words import TEMPLATE


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Replaces `folder`, which `demo.folders.check_replaceable` allowed."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to("cpu", torch.float16).save_pretrained(partial)
    size = {"height": TILE, "width": TILE}
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE},
        crop_size=size,
        image_grid_pinpoints=[list(each) for each in PINPOINTS],
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    LlavaNextProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
