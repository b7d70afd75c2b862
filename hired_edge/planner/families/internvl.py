"""InternVL 2.5 and 3: InternViT, whose patches are merged 2 x 2 in front of the projector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hired_edge.geometry.dynamic import canvases
from hired_edge.planner.families.family import Config, Family, feature_layer, given, section, sizes
from hired_edge.planner.original import refused
from hired_edge.planner.shapes import Tensors, TowerShape
from hired_edge.processors import got_ocr2
from hired_edge.tiling import TilingRules

MERGE = 2
"""Patches along a side of a visual token: what transformers calls `downsample_ratio` is one by it."""
NORMS = ("layer_norm", "rms_norm")
FIXED: dict[str, Any] = {
    "use_mean_pooling": True,  # else there is a norm behind the last layer
    "use_absolute_position_embeddings": True,
    "use_mask_token": False,
    "num_channels": 3,
}
"""What vision_config may say in no other way."""
_TOWER = "internvl_vision"
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 448,
    "patch_size": 14,
    "attention_bias": False,
    "use_qk_norm": False,
    "norm_type": "layer_norm",
    **FIXED,
}
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(frozen=True)
class InternTower(TowerShape):
    """InternViT. `norm_bias`: its norms have one, being no RMS norms."""

    qkv_bias: bool
    qk_norm: bool
    norm_bias: bool

    @property
    def merge(self) -> int:
        return MERGE

    def stem_tensors(self, patches: int, patch_px: int) -> Tensors:
        width = self.hidden_size
        return {
            "vision.embeddings.cls_token": (1, 1, width),
            "vision.embeddings.position_embeddings": (1, patches + 1, width),
            "vision.embeddings.patch_embeddings.projection.weight": (width, 3, patch_px, patch_px),
            "vision.embeddings.patch_embeddings.projection.bias": (width,),
        }

    def layer_tensors(self, layer: int) -> Tensors:
        width, wide = self.hidden_size, self.intermediate_size
        tensors: Tensors = {"lambda_1": (width,), "lambda_2": (width,)}
        for name, outputs, inputs, bias in (
            *((f"attention.{part}_proj", width, width, self.qkv_bias) for part in ("q", "k", "v")),
            ("attention.projection_layer", width, width, True),
            ("mlp.fc1", wide, width, True),
            ("mlp.fc2", width, wide, True),
        ):
            tensors |= {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})
        for name in ("layernorm_before", "layernorm_after"):
            tensors |= {f"{name}.weight": (width,)} | ({f"{name}.bias": (width,)} if self.norm_bias else {})
        if self.qk_norm:
            tensors |= {"attention.q_norm.weight": (width,), "attention.k_norm.weight": (width,)}
        return {f"vision.encoder.layer.{layer}.{name}": shape for name, shape in tensors.items()}

    def projector_tensors(self, text_width: int) -> Tensors:
        merged = MERGE**2 * self.hidden_size
        return {
            "projector.layer_norm.weight": (merged,),
            "projector.layer_norm.bias": (merged,),
            "projector.linear_1.weight": (text_width, merged),
            "projector.linear_1.bias": (text_width,),
            "projector.linear_2.weight": (text_width, text_width),
            "projector.linear_2.bias": (text_width,),
        }


def _read(config: Config, processor: Callable[[], Config]) -> tuple[TowerShape, TilingRules]:
    top = {"vision_feature_layer": -1, "downsample_ratio": 1 / MERGE, **given(config)}
    if top["downsample_ratio"] != 1 / MERGE:
        raise refused(f"downsample_ratio {str(top['downsample_ratio'])[:40]}", f"{1 / MERGE}")
    tower = {**_DEFAULTS, **section(config, "vision_config", _TOWER)}
    for name, expected in FIXED.items():
        if tower[name] != expected:
            raise refused(f"vision_config.{name} {str(tower[name])[:40]}", str(expected))
    if tower["norm_type"] not in NORMS:
        raise refused(f"vision_config.norm_type {str(tower['norm_type'])[:40]!r}", " or ".join(NORMS))
    squares = {name: _side(name, tower[name]) for name in ("image_size", "patch_size")}
    found = sizes("vision_config", {**tower, **squares}, (*_SIZES, *squares))
    shape = InternTower(
        layers=found["num_hidden_layers"],
        feature_layer=feature_layer(top["vision_feature_layer"], found["num_hidden_layers"]),
        hidden_size=found["hidden_size"],
        intermediate_size=found["intermediate_size"],
        heads=found["num_attention_heads"],
        qkv_bias=bool(tower["attention_bias"]),
        qk_norm=bool(tower["use_qk_norm"]),
        norm_bias=tower["norm_type"] == "layer_norm",
    )
    side, patch = found["image_size"], found["patch_size"]
    if patch > side or side // patch % MERGE:
        raise refused(f"patches of {patch} px in tiles of {side} px", f"a multiple of {MERGE} of them along a side")
    grids = canvases(side, *got_ocr2.tile_counts(processor()))
    return shape, TilingRules("dynamic", side, patch * MERGE, grids)


def _side(name: str, value: object) -> object:
    """Of a square, which may be given by both of its sides."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2 or value[0] != value[1]:
            raise refused(f"vision_config.{name} {str(value)[:40]}", "1 or more, or twice the same")
        return value[0]
    return value


INTERNVL = Family("qwen2", _TOWER, newline=False, tied=True, read=_read)
