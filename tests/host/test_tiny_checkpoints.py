"""The tiny checkpoints are real ones: transformers reads every layout as the same model, and the model is not flat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.tiny.checkpoints import load_processor, load_reference, write_checkpoint

CASES = [
    ("llava_next", "llama", {}),
    ("llava_next", "mistral", {"rope": {"rope_theta": 1e6}}),
    ("llava_next", "qwen2", {"tie_embeddings": True}),
    ("llava", "llama", {"rope": {"rope_type": "linear", "factor": 2.0}}),
    ("llava", "qwen2", {"tie_embeddings": True}),
    ("llava", "mistral", {"text_config": {"sliding_window": 24, "head_dim": 32}}),
    (
        "llava",
        "llama",
        {
            "text_config": {"attention_bias": True, "num_key_value_heads": 2},
            "rope": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512,
            },
        },
    ),
]


def picture(width: int = 130, height: int = 75) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def inputs(folder: Path) -> Any:
    processor = load_processor(folder)
    content = [{"type": "image"}, {"type": "text", "text": "What is shown in this picture?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(images=picture(), text=text, return_tensors="pt")


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_reference(folder)(**inputs(folder)).logits


@pytest.mark.parametrize(("family", "text", "options"), CASES)
def test_layouts_are_the_same_model(tmp_path: Path, family: Any, text: Any, options: dict[str, Any]) -> None:
    v5 = write_checkpoint(tmp_path / "v5", family, text, **options)
    v4 = write_checkpoint(tmp_path / "v4", family, text, layout="v4", shards=3, **options)
    memory = write_checkpoint(
        tmp_path / "memory", family, text, layout="memory", safetensors=False, shards=2, **options
    )
    expected = logits(v5)
    assert torch.equal(logits(v4), expected)
    assert torch.equal(logits(memory), expected)
    assert expected[0, -1].std() > 0.5


def test_v5_is_what_transformers_saves(tmp_path: Path) -> None:
    ours = write_checkpoint(tmp_path / "ours")
    load_reference(ours).save_pretrained(tmp_path / "theirs")
    assert names(tmp_path / "theirs") == names(ours)
    theirs = json.loads((tmp_path / "theirs/config.json").read_text())
    assert json.loads((ours / "config.json").read_text()) == theirs


def test_generates_an_answer_that_depends_on_the_picture(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", "llava_next", "mistral", dtype="bfloat16")
    model, batch = load_reference(folder), inputs(folder)
    first = model.generate(**batch, max_new_tokens=8, do_sample=False)
    batch["pixel_values"] = batch["pixel_values"].flip(-1)
    second = model.generate(**batch, max_new_tokens=8, do_sample=False)
    assert first.shape[1] > batch["input_ids"].shape[1]
    assert not torch.equal(first, second)


def test_attention_of_the_class_token_is_not_flat(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    tower = load_reference(folder).model.vision_tower
    with torch.no_grad():
        maps = tower(inputs(folder)["pixel_values"][0], output_attentions=True).attentions
    for layer in (0, 3):
        row = maps[layer].sum(1)[:, 0, 1:]
        assert float(row.max() / row.mean()) > 2


def names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "np") as weights:
        return set(weights.keys())
