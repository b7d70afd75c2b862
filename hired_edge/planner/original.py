"""The original layout of a config.json (haotian-liu/LLaVA, ShareGPT4V, LLaVA-NeXT) -> the Hub's, as data.

There the decoder's keys are at the top, the tower is a name (`mm_vision_tower`) and the projector a word. Source: the
code that reads them, llava/model/{llava_arch.py,multimodal_projector/builder.py,multimodal_encoder/clip_encoder.py} and
llava/mm_utils.py of haotian-liu/LLaVA.

One thing is deliberately not the original's: `image_grid_pinpoints` are read as (height, width), where that code reads
(width, height). This is what transformers does, our reference; the published list is symmetric, so only ties between
two grids fall otherwise, which small pictures have. Nothing is guessed: a word that is not known here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hired_edge.errors import CheckpointError
from hired_edge.planner.defaults import CLIP_L_336

TEXT_MODELS = {
    "llava": "llama",  # also the Hub's LLaVA-1.5, which has a text_config
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
    "share4v": "llama",
}
"""`model_type` of an original config -> the text model's own."""

TOWERS = ("clip-vit-large-patch14-336", "vit-large336-l12")
"""What the names of the towers that the published checkpoints use end in: OpenAI's and ShareGPT4V's, of one shape."""

ASPECTS = {"anyres": "llava_next", "pad": "llava", "square": "llava", None: "llava"}
"""`image_aspect_ratio` -> family: tiles; padded to a square in the mean colour; the centre cut out (the default)."""
MERGES = {"llava_next": ("spatial_unpad",), "llava": (None, "flat")}
"""Family -> `mm_patch_merge_type` that are reproduced."""

_NOT_TEXT = re.compile(r"mm_|image_|tune_|freeze_|unfreeze_|use_mm|model_type$|architectures$|auto_map$|_name_or_path$")


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of an original layout."""
    return "mm_vision_tower" in config and not isinstance(config.get("text_config"), Mapping)


def hub_layout(config: Mapping[str, Any], tower: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """The config as the Hub's repositories would have it; those of the Hub's layout stay as they are.

    Args:
        config: config.json.
        tower: the tower's own `vision_config`; None: by its name.

    Raises:
        CheckpointError: an original layout with a tower, a projector or an option that is not supported.
    """
    if not is_original(config):
        return config
    text = _one_of(config, "model_type", TEXT_MODELS)
    family = _one_of(config, "image_aspect_ratio", ASPECTS)
    for name, known in (
        ("mm_patch_merge_type", MERGES[family]),
        ("mm_projector_type", ("mlp2x_gelu",)),
        ("mm_vision_select_feature", (None, "patch")),
        ("mm_resampler_type", (None,)),
        ("mm_use_im_start_end", (None, False)),
    ):
        _one_of(config, name, dict.fromkeys(known))
    vision = dict(_named_tower(config["mm_vision_tower"]) if tower is None else tower)
    if config.get("mm_hidden_size") not in (None, vision.get("hidden_size")):
        got = f"mm_hidden_size {_short(config['mm_hidden_size'])} and the tower's config hidden_size"
        raise refused(f"{got} {_short(vision.get('hidden_size'))}", "the same")
    translated: dict[str, Any] = {
        "model_type": family,
        "text_config": {**{key: config[key] for key in config if not _NOT_TEXT.match(key)}, "model_type": text},
        "vision_config": {**vision, "model_type": "clip_vision_model"},
        "vision_feature_layer": config.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
    }
    if family == "llava_next":
        translated["image_grid_pinpoints"] = [list(pair) for pair in pinpoints(config.get("image_grid_pinpoints"))]
    return translated


def pads(config: Mapping[str, Any]) -> bool:
    """Whether an original config has pictures padded to a square in the mean colour."""
    return config.get("image_aspect_ratio") == "pad"


def tower_name(config: Mapping[str, Any]) -> str:
    """The last part of the tower's name: "clip-vit-large-patch14-336" of "openai/clip-vit-large-patch14-336"."""
    return str(config["mm_vision_tower"]).rstrip("/").rpartition("/")[2]


def pinpoints(given: object) -> tuple[tuple[int, int], ...]:
    """`image_grid_pinpoints`, (height, width) px each.

    Raises:
        CheckpointError: anything but pairs of whole numbers.
    """
    pairs = [_pair(pair) for pair in given] if isinstance(given, (list, tuple)) else []
    found = tuple(pair for pair in pairs if pair is not None)
    if not found or len(found) < len(pairs):
        raise refused(f"image_grid_pinpoints {str(given)[:80]}", "pairs of whole numbers (height, width)")
    return found


def _pair(given: object) -> tuple[int, int] | None:
    if not isinstance(given, (list, tuple)) or len(given) != 2 or not all(type(side) is int for side in given):
        return None
    return given[0], given[1]


def _named_tower(name: object) -> Mapping[str, Any]:
    if not isinstance(name, str) or not name.rstrip("/").endswith(TOWERS):
        raise refused(f"mm_vision_tower {_short(name)}", "a CLIP ViT-L of 336 px")
    return CLIP_L_336


def _one_of(config: Mapping[str, Any], name: str, known: Mapping[Any, Any]) -> Any:
    value = config.get(name)
    if not isinstance(value, (str, bool, type(None))) or value not in known:
        words = " or ".join("none" if word is None else str(word) for word in known)
        raise refused(f"{name} {_short(value)}", words)
    return known[value]


def _short(value: object) -> str:
    return ascii(value)[:60]


def refused(got: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"config.json says {got}", expected=expected, fix="use a checkpoint of a supported architecture"
    )
