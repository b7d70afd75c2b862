"""InternVL 2.5 and 3 in the Hub's layout of transformers' classes (the repositories whose names end in -hf).

docs/internvl.md says what plays which part in HiRED, and why. What is not read is the layout of the original
repositories (`model_type` internvl_chat).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, cast

import numpy as np
import torch
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.modeling_internvl import (
    InternVLModel,
    InternVLMultiModalProjector,
    InternVLVisionModel,
)

from hired_edge.errors import InputError
from hired_edge.geometry.dynamic import canvases
from hired_edge.planner.families.internvl import FIXED, MERGE, NORMS
from hired_edge.preprocessing import PreprocessRules
from hired_edge.processors import got_ocr2, unwrapped
from hired_edge.tiling import TilingRules
from hired_export.checkpoint import Checkpoint
from hired_export.families.family import AttentionChoice, Family, ReferenceTower, chosen_attention, require
from hired_export.picture_rules import find_file
from hired_export.towers.intern import InternShape

DOWNSAMPLE_RATIO = 1 / MERGE
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class InternVL(Family):
    """Stretched tiles, then the whole picture; blocks of 2 x 2 patches are tokens."""

    tower: ClassVar[str] = "internvl_vision"
    image_token: ClassVar[str] = "image_token_id"
    around: ClassVar[tuple[str, str] | None] = ("start_image_token", "end_image_token")

    def tiling(self, config: Any, checkpoint: Checkpoint) -> TilingRules:
        side, patch = _sizes(config)
        found = find_file(checkpoint)
        fewest, most = got_ocr2.tile_counts({} if found is None else unwrapped(found[1]))
        return TilingRules("dynamic", side, patch * MERGE, canvases(side, fewest, most))

    def vision(self, config: Any, attention: AttentionChoice) -> InternShape:
        tower = config.vision_config
        side, patch = _sizes(config)
        for name, expected in FIXED.items():
            value = getattr(tower, name)
            require(value == expected, f"vision_config.{name} {value}", str(expected))
        require(tower.norm_type in NORMS, f"vision_config.norm_type {tower.norm_type!r}", " or ".join(NORMS))
        if attention.keys:
            raise InputError(
                f"--with-keys for model_type {config.model_type!r}",
                expected="a family whose visual tokens are patches: here each is four, with a key each",
                fix="leave --with-keys out",
            )
        chosen = chosen_attention(config, attention)
        return InternShape(
            image_size=side,
            patch_size=patch,
            hidden_size=tower.hidden_size,
            intermediate_size=tower.intermediate_size,
            heads=tower.num_attention_heads,
            activation=tower.hidden_act,
            layer_norm_epsilon=tower.layer_norm_eps,
            text_width=config.text_config.hidden_size,
            projector_activation=config.projector_hidden_act,
            norm=tower.norm_type,
            qkv_bias=tower.attention_bias,
            qk_norm=tower.use_qk_norm,
            merge=MERGE,
            **chosen,
        )

    def stored_as(self, name: str) -> str:
        if name.startswith("multi_modal_projector."):
            return name.replace("multi_modal_projector.", "projector.", 1)
        return "vision." + re.sub(r"^layers\.", "encoder.layer.", name)

    def reference(self, config: Any) -> ReferenceTower:
        tower, projector = InternVLVisionModel(config.vision_config), InternVLMultiModalProjector(config)
        layers: Any = tower.encoder.layer

        def features(hidden: torch.Tensor) -> torch.Tensor:
            shuffled = _shuffled(hidden)
            return projector(shuffled.flatten(1, 2))

        def per_token(maps: torch.Tensor) -> torch.Tensor:
            return _shuffled(maps[..., None]).sum(-1).flatten(1)

        return ReferenceTower(
            tower, projector, features, lambda i: (layers[i].attention, layers[i].layernorm_before), per_token
        )

    def pixels(self, picture: Image.Image, tiling: TilingRules, rules: PreprocessRules) -> torch.Tensor:
        counts = [np.prod(tiling.grid(canvas)) for canvas in tiling.pinpoints]
        processor = GotOcr2ImageProcessorPil(
            size={"height": rules.image_size, "width": rules.image_size},
            rescale_factor=rules.rescale_factor,
            image_mean=list(rules.image_mean),
            image_std=list(rules.image_std),
            crop_to_patches=True,
            min_patches=int(min(counts)),
            max_patches=int(max(counts)),
        )
        tiles = np.asarray(processor(picture, return_tensors="np")["pixel_values"])
        return torch.from_numpy(np.roll(tiles, 1, axis=0))  # the whole picture comes last there

    def stand_in_processor(self, tiling: TilingRules) -> dict[str, Any]:
        counts = [rows * columns for rows, columns in map(tiling.grid, tiling.pinpoints)]
        return {
            "image_processor_type": "GotOcr2ImageProcessor",
            "size": {"height": tiling.image_size, "width": tiling.image_size},
            "crop_to_patches": True,
            "min_patches": min(counts),
            "max_patches": max(counts),
            "image_mean": _MEAN,
            "image_std": _STD,
        }


def _sizes(config: Any) -> tuple[int, int]:
    """Sides of a tile and of a patch, px."""
    ratio = config.downsample_ratio
    require(ratio == DOWNSAMPLE_RATIO, f"downsample_ratio {ratio}", str(DOWNSAMPLE_RATIO))
    side, patch = (_side(config.vision_config, name) for name in ("image_size", "patch_size"))
    require(patch <= side, f"patches of {patch} px in tiles of {side} px", "0 < patch_size <= image_size")
    patches = side // patch
    expected = f"a multiple of {MERGE}, since {MERGE} x {MERGE} of them are a token"
    require(patches % MERGE == 0, f"{patches} patches along a tile's side", expected)
    return side, patch


def _side(tower: Any, name: str) -> int:
    """Of a square: transformers has both of its sides."""
    value = getattr(tower, name)
    square = isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]
    expected = "1 or more, or twice the same"
    require(square and type(value[0]) is int and value[0] >= 1, f"vision_config.{name} {value}", expected)
    return value[0]


def _shuffled(patches: torch.Tensor) -> torch.Tensor:
    """(T, patches, W) -> (T, side / 2, side / 2, 4 W), by transformers' own pixel shuffle, which knows no model."""
    side = int(patches.shape[1] ** 0.5)
    grid = patches.reshape(patches.shape[0], side, side, -1)
    return InternVLModel.pixel_shuffle(cast(Any, None), grid, scale_factor=DOWNSAMPLE_RATIO)
