"""How checkpoints of different origin name the same tensors and spell the same config. Knows nothing about weights."""

from __future__ import annotations

import re
from typing import Any, Literal

Layout = Literal["v4", "v5", "memory"]

# From the names that a transformers 5 model has in memory to those of each layout; the first match is applied.
# v5 is what save_pretrained of 5.23 writes: the Hub's names, but the tower without its `vision_model.` level.
RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "memory": (),
    "v5": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.", ""),
    ),
    "v4": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.vision_tower\.", "vision_tower.vision_model."),
        (r"^model\.", ""),
    ),
}


def rename(name: str, layout: str) -> str:
    """The stored name of the tensor that transformers 5 calls `name` in memory."""
    for pattern, replacement in RENAMES[layout]:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def v4_config(config: Any, family: str, text: str) -> dict[str, Any]:
    """config.json as transformers 4 wrote it: old names, the text model's defaults omitted."""
    full = config.to_dict()
    defaults = type(config.text_config)().to_dict()
    rope = full["text_config"].pop("rope_parameters")
    language = {key: value for key, value in full["text_config"].items() if value != defaults.get(key)}
    if language.get("head_dim") == language["hidden_size"] // language["num_attention_heads"]:
        del language["head_dim"]
    if text == "llama" and language["num_key_value_heads"] == language["num_attention_heads"]:
        del language["num_key_value_heads"]
    language["architectures"] = [type(config.text_config).__name__.removesuffix("Config") + "ForCausalLM"]
    language["model_type"] = text
    language["torch_dtype"] = language.pop("dtype")
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    if theta != 10000.0:
        language["rope_theta"] = theta
    if kind != "default":  # the key was `type` until llama3 scaling came
        language["rope_scaling"] = {"rope_type" if kind == "llama3" else "type": kind, **rope}
    vision_keys = ("hidden_size", "image_size", "intermediate_size", "model_type", "num_attention_heads")
    vision = {
        key: full["vision_config"][key] for key in (*vision_keys, "num_hidden_layers", "patch_size", "projection_dim")
    }
    next_fields = {"image_grid_pinpoints": full.get("image_grid_pinpoints"), "use_image_newline_parameter": True}
    return {
        "architectures": full["architectures"],
        "ignore_index": -100,
        **(next_fields if family == "llava_next" else {}),
        "image_seq_length": full["image_seq_length"],
        "image_token_index": full["image_token_index"],
        "model_type": family,
        "projector_hidden_act": full["projector_hidden_act"],
        "text_config": language,
        # LLaVA-1.5 repositories say it in text_config alone.
        "tie_word_embeddings": full["tie_word_embeddings"] and family == "llava_next",
        "torch_dtype": full["dtype"],
        "transformers_version": "4.39.0",
        "vision_config": {**vision, "vocab_size": 32000},
        "vision_feature_layer": full["vision_feature_layer"],
        "vision_feature_select_strategy": full["vision_feature_select_strategy"],
        "vocab_size": full["text_config"]["vocab_size"],
    }


def v4_picture_config(processor: Any) -> dict[str, Any]:
    """preprocessor_config.json as transformers 4 wrote it."""
    fields = processor.image_processor.to_dict()
    name = type(processor.image_processor).__name__.removesuffix("Pil")
    return {**fields, "image_processor_type": name, "processor_class": type(processor).__name__}
