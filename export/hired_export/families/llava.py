"""LLaVA-1.5 and LLaVA-NeXT (and, once `planner.original` has translated them, the original layouts and ShareGPT4V)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextMultiModalProjector

from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import TilingRules
from hired_export.checkpoint import Checkpoint
from hired_export.families.family import (
    AttentionChoice,
    Family,
    ReferenceTower,
    chosen_attention,
    require,
    require_positive,
)
from hired_export.towers.clip import ClipShape

_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


class Llava(Family):
    """One crop of the picture."""

    tower: ClassVar[str] = "clip_vision_model"
    processor: ClassVar[str] = "CLIPImageProcessor"

    def tiling(self, config: Any, checkpoint: Checkpoint) -> TilingRules:
        return TilingRules("single", *_sizes(config))

    def vision(self, config: Any, attention: AttentionChoice) -> ClipShape:
        tower = config.vision_config
        chosen = chosen_attention(config, attention)
        return ClipShape(
            image_size=tower.image_size,
            patch_size=tower.patch_size,
            hidden_size=tower.hidden_size,
            intermediate_size=tower.intermediate_size,
            heads=tower.num_attention_heads,
            activation=tower.hidden_act,
            layer_norm_epsilon=tower.layer_norm_eps,
            text_width=config.text_config.hidden_size,
            projector_activation=config.projector_hidden_act,
            projector_bias=config.multimodal_projector_bias,
            **chosen,
        )

    def stored_as(self, name: str) -> str:
        if name.startswith("multi_modal_projector."):
            return name.replace("multi_modal_projector.", "projector.", 1)
        return f"vision.encoder.{name}" if name.startswith("layers.") else f"vision.{name}"

    def reference(self, config: Any) -> ReferenceTower:
        tower, projector = CLIPVisionModel(config.vision_config), LlavaNextMultiModalProjector(config)

        def attention(layer: int) -> tuple[Any, Any]:
            module: Any = getattr(tower, "vision_model", tower).encoder.layers[layer]  # gone in transformers 5
            return module.self_attn, module.layer_norm1

        return ReferenceTower(tower, projector, projector, attention, lambda maps: maps)

    def pixels(self, picture: Image.Image, tiling: TilingRules, rules: PreprocessRules) -> torch.Tensor:
        kind = CLIPImageProcessorPil if rules.pad_colour is None else LlavaImageProcessorPil
        padding = {} if rules.pad_colour is None else {"do_pad": True}
        processor = kind(**_processor_fields(rules), **padding)
        return torch.from_numpy(np.asarray(processor(picture, return_tensors="np")["pixel_values"]))

    def stand_in_processor(self, tiling: TilingRules) -> dict[str, Any]:
        side = tiling.image_size
        return {
            "image_processor_type": self.processor,
            "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side},
            "image_mean": _CLIP_MEAN,
            "image_std": _CLIP_STD,
        }


class LlavaNext(Llava):
    """Tiles beside the whole picture, whose rows end in a newline."""

    newline: ClassVar[bool] = True
    processor: ClassVar[str] = "LlavaNextImageProcessor"

    def tiling(self, config: Any, checkpoint: Checkpoint) -> TilingRules:
        given = config.image_grid_pinpoints
        require(_are_pairs(given), f"image_grid_pinpoints {str(given)[:80]}", "pairs of whole numbers (height, width)")
        return TilingRules("anyres", *_sizes(config), tuple((height, width) for height, width in given))

    def pixels(self, picture: Image.Image, tiling: TilingRules, rules: PreprocessRules) -> torch.Tensor:
        pinpoints = [list(each) for each in tiling.pinpoints]
        processor = LlavaNextImageProcessorPil(**_processor_fields(rules), image_grid_pinpoints=pinpoints)
        return torch.from_numpy(np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]))

    def stand_in_processor(self, tiling: TilingRules) -> dict[str, Any]:
        pinpoints = [list(pair) for pair in tiling.pinpoints]
        return {**super().stand_in_processor(tiling), "image_grid_pinpoints": pinpoints}


def _sizes(config: Any) -> tuple[int, int]:
    require_positive("vision_config", config.vision_config, ("image_size", "patch_size"))
    return config.vision_config.image_size, config.vision_config.patch_size


def _are_pairs(given: Any) -> bool:
    listed = isinstance(given, (list, tuple)) and all(isinstance(pair, (list, tuple)) for pair in given)
    return listed and all(len(pair) == 2 and all(type(side) is int for side in pair) for pair in given)


def _processor_fields(rules: PreprocessRules) -> dict[str, Any]:
    side = {"height": rules.image_size, "width": rules.image_size}
    return {
        "size": side if rules.shortest_edge is None else {"shortest_edge": rules.shortest_edge},
        "crop_size": side,
        "rescale_factor": rules.rescale_factor,
        "image_mean": list(rules.image_mean),
        "image_std": list(rules.image_std),
    }
