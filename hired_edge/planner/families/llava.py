"""LLaVA-1.5 and LLaVA-NeXT: CLIP's tower and a projector of two products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hired_edge.planner.defaults import CLIP, CLIP_L_336
from hired_edge.planner.families.family import Config, Family, feature_layer, given, section, sizes
from hired_edge.planner.original import pinpoints
from hired_edge.planner.shapes import Tensors, TowerShape
from hired_edge.tiling import TilingRules

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_TOP: dict[str, Any] = {"vision_feature_layer": -2, "multimodal_projector_bias": True}
_TOWER = "clip_vision_model"


@dataclass(frozen=True)
class ClipTower(TowerShape):
    """CLIP."""

    projector_bias: bool

    def stem_tensors(self, patches: int, patch_px: int) -> Tensors:
        width = self.hidden_size
        return {
            "vision.embeddings.class_embedding": (width,),
            "vision.embeddings.patch_embedding.weight": (width, 3, patch_px, patch_px),
            "vision.embeddings.position_embedding.weight": (patches + 1, width),
            "vision.pre_layrnorm.weight": (width,),
            "vision.pre_layrnorm.bias": (width,),
        }

    def layer_tensors(self, layer: int) -> Tensors:
        width, wide = self.hidden_size, self.intermediate_size
        tensors: Tensors = {}
        for name, outputs, inputs in (
            *((f"self_attn.{part}_proj", width, width) for part in ("q", "k", "v", "out")),
            ("mlp.fc1", wide, width),
            ("mlp.fc2", width, wide),
        ):
            tensors |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
        for name in ("layer_norm1", "layer_norm2"):
            tensors |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
        return {f"vision.encoder.layers.{layer}.{name}": shape for name, shape in tensors.items()}

    def projector_tensors(self, text_width: int) -> Tensors:
        tensors: Tensors = {}
        for name, inputs in (("linear_1", self.hidden_size), ("linear_2", text_width)):
            tensors[f"projector.{name}.weight"] = (text_width, inputs)
            if self.projector_bias:
                tensors[f"projector.{name}.bias"] = (text_width,)
        return tensors

    def unread_tensors(self) -> Tensors:
        return {f"vision.post_layernorm.{part}": (self.hidden_size,) for part in ("weight", "bias")}


def _read(config: Config, top: Mapping[str, Any], rules: str) -> tuple[TowerShape, TilingRules]:
    tower = {
        **(CLIP_L_336 if config.get("vision_config") is None else CLIP),
        **section(config, "vision_config", _TOWER),
    }
    found = sizes("vision_config", tower, tuple(CLIP))
    grids = pinpoints(top["image_grid_pinpoints"]) if rules == "anyres" else ()
    shape = ClipTower(
        layers=found["num_hidden_layers"],
        feature_layer=feature_layer(top["vision_feature_layer"], found["num_hidden_layers"]),
        hidden_size=found["hidden_size"],
        intermediate_size=found["intermediate_size"],
        heads=found["num_attention_heads"],
        projector_bias=bool(top["multimodal_projector_bias"]),
    )
    return shape, TilingRules(rules, found["image_size"], found["patch_size"], grids)


def _llava(config: Config, processor: Callable[[], Config]) -> tuple[TowerShape, TilingRules]:
    return _read(config, {**_TOP, **given(config)}, "single")


def _llava_next(config: Config, processor: Callable[[], Config]) -> tuple[TowerShape, TilingRules]:
    return _read(config, {**_TOP, "image_grid_pinpoints": PINPOINTS, **given(config)}, "anyres")


LLAVA = Family("llama", _TOWER, newline=False, tied=False, read=_llava)
LLAVA_NEXT = Family("llama", _TOWER, newline=True, tied=False, read=_llava_next)
