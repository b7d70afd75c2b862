"""Tiny checkpoints in the original layouts, made of a tiny one in the Hub's: the same weights under the other names.

    llava-v1.5      no tower, no newline; pictures are padded
    llava-v1.6      the tower inside, `image_newline`, tiles
    sharegpt4v      as v1.5, `.bin`, with a tower of its own

The tokenizer is that of the Hub's checkpoint, `<image>` and all: `write_sentencepiece` makes a tokenizer.model. Knows
nothing about hired-edge; needs torch.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

RENAMES = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model."),
    (r"^vision_tower\.(?:vision_model\.)?", "model.vision_tower.vision_tower.vision_model."),
    (r"^multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^image_newline$", "model.image_newline"),
)
"""From the names that `write_checkpoint` stores ("v5")."""
_TOWER = "model.vision_tower.vision_tower."
_MODEL_TYPES = {"llama": "llava_llama", "mistral": "llava_mistral", "qwen2": "llava_qwen"}


def write_original(
    hub: Path,
    folder: Path,
    *,
    tower: Path | None = None,
    model_type: str | None = None,
    safetensors: bool = True,
    shards: int = 1,
    **changes: Any,
) -> Path:
    """Writes the checkpoint `hub` ("v5", one safetensors file) in the original layout and returns `folder`.

    Args:
        hub: it says the family: LLaVA-1.5's pictures are padded here, LLaVA-NeXT's are tiled.
        folder: to be made; prompts go by its name.
        tower: where the tower's checkpoint is written; None: it stays inside.
        model_type: of config.json; the text model's by default.
        safetensors: False for `.bin`, of both.
        shards: files of the checkpoint.
        changes: of config.json; None takes a key out.
    """
    folder.mkdir(parents=True)
    config = json.loads((hub / "config.json").read_text())
    weights = {_rename(name): tensor for name, tensor in load_file(hub / "model.safetensors").items()}
    inside = {name: tensor for name, tensor in weights.items() if tower is None or not name.startswith(_TOWER)}
    # As checkpoints of old transformers have it.
    inside["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    _write_weights(folder, inside, safetensors, shards)
    flat = {**_flat(config, model_type), **changes}
    left_out = {key for key, value in changes.items() if value is None}
    _write_json(folder / "config.json", {key: flat[key] for key in flat if key not in left_out})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(hub / name, folder / name)
    if tower is not None:
        own = {name.removeprefix(_TOWER): tensor for name, tensor in weights.items() if name.startswith(_TOWER)}
        write_tower(tower, own, config["vision_config"], safetensors)
    return folder


def write_tower(folder: Path, weights: dict[str, torch.Tensor], config: dict[str, Any], safetensors: bool) -> Path:
    """A CLIPModel's vision half, as OpenAI's repositories have it: config.json of the whole, the names of the half."""
    folder.mkdir(parents=True)
    _write_weights(folder, weights, safetensors, 1)
    vision = {key: value for key, value in config.items() if key not in ("dtype", "model_type")}
    _write_json(folder / "config.json", {"model_type": "clip", "vision_config": vision, "projection_dim": 32})
    side = config["image_size"]
    processor = {
        "crop_size": side,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": side,
    }
    _write_json(folder / "preprocessor_config.json", processor)
    return folder


def write_sentencepiece(folder: Path, *, first_space: bool = True, **changes: Any) -> Path:
    """Writes the tokenizer.model of Llama's kind that a tiny tokenizer.json ("llama") says, in its place.

    Args:
        folder: with a tokenizer.json, which goes.
        first_space: SentencePiece's `add_dummy_prefix`.
        changes: further fields of its normaliser (`remove_extra_whitespaces`, ...) or `model_type`, of its trainer.
    """
    from transformers.utils import sentencepiece_model_pb2_new  # generated code: no package is needed

    proto: Any = sentencepiece_model_pb2_new
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    model = proto.ModelProto()
    model.trainer_spec.model_type = changes.pop("model_type", 2)
    model.trainer_spec.byte_fallback = True
    for name, value in {"remove_extra_whitespaces": False, "add_dummy_prefix": first_space, **changes}.items():
        setattr(model.normalizer_spec, name, value)
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    for text, index in sorted(tokenizer["model"]["vocab"].items(), key=lambda pair: pair[1]):
        kind = kinds.get(text) or (6 if re.fullmatch(r"<0x..>", text) else 1)
        model.pieces.add(piece=text, score=-float(index) if kind == 1 else 0.0, type=kind)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for key in ("added_tokens_decoder", "extra_special_tokens", "image_token", "pad_token"):
        config.pop(key, None)
    _write_json(folder / "tokenizer_config.json", config)
    return folder / "tokenizer.model"


def _flat(config: dict[str, Any], model_type: str | None) -> dict[str, Any]:
    text, tiled = config["text_config"], config["model_type"] == "llava_next"
    kept = {key: text[key] for key in text if key not in ("model_type", "rope_parameters", "dtype")}
    next_fields = {"image_grid_pinpoints": config.get("image_grid_pinpoints"), "mm_patch_merge_type": "spatial_unpad"}
    return {
        **kept,
        **(next_fields if tiled else {}),
        "architectures": ["LlavaLlamaForCausalLM"],
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "anyres" if tiled else "pad",
        "mm_hidden_size": config["vision_config"]["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": config["vision_feature_layer"],
        "mm_vision_tower": "tiny/clip-vit-base-patch14-56",
        "model_type": model_type or _MODEL_TYPES[text["model_type"]],
        "rope_scaling": None,
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "torch_dtype": "float16",
        "transformers_version": "4.31.0",
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
    }


def _rename(name: str) -> str:
    for pattern, replacement in RENAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    raise AssertionError(name)


def _write_weights(folder: Path, weights: dict[str, torch.Tensor], safetensors: bool, shards: int) -> None:
    stem, suffix = ("model", "safetensors") if safetensors else ("pytorch_model", "bin")
    names, weight_map = sorted(weights), {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05d}-of-{shards:05d}.{suffix}" if shards > 1 else f"{stem}.{suffix}"
        part = {name: weights[name].contiguous() for name in names[shard::shards]}
        weight_map |= dict.fromkeys(part, file)
        if safetensors:
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
    if shards > 1:
        _write_json(folder / f"{stem}.{suffix}.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
