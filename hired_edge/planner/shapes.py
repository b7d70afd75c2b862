"""The sizes of a model that memory and time depend on, and the tensors that an export stores of it.

Names are the exporter's canonical ones (`text.*`, `lm_head.weight`, `vision.*`, `projector.*`, `image_newline`), shapes
as in a checkpoint: a matrix is (outputs, inputs). How many bytes a tensor takes is `storage.py`'s business.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from hired_edge.tiling import TilingRules

Tensors = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TextShape:
    """A decoder. Sizes are in elements."""

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    positions: int
    """The length of the rotary tables."""
    sliding_window: int | None
    """Tokens that a query sees; None for all."""
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    tied: bool
    """The LM head is the embedding table. An export stores both all the same."""

    @property
    def layer_elements(self) -> int:
        """Weights of one layer's seven matrices."""
        return sum(math.prod(shape) for name, shape in self.layer_tensors(0).items() if len(shape) == 2)

    @property
    def head_elements(self) -> int:
        """Weights of the LM head, V x D."""
        return self.vocab_size * self.hidden_size

    def layer_tensors(self, layer: int) -> Tensors:
        """One layer's tensors."""
        width, wide = self.hidden_size, self.intermediate_size
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        projections = {
            "self_attn.q_proj": (queries, width, self.qkv_bias),
            "self_attn.k_proj": (keys, width, self.qkv_bias),
            "self_attn.v_proj": (keys, width, self.qkv_bias),
            "self_attn.o_proj": (width, queries, self.o_bias),
            "mlp.gate_proj": (wide, width, self.mlp_bias),
            "mlp.up_proj": (wide, width, self.mlp_bias),
            "mlp.down_proj": (width, wide, self.mlp_bias),
        }
        tensors: Tensors = {}
        for name, (outputs, inputs, bias) in projections.items():
            tensors[f"{name}.weight"] = (outputs, inputs)
            if bias:
                tensors[f"{name}.bias"] = (outputs,)
        tensors |= {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
        return {f"text.layers.{layer}.{name}": shape for name, shape in tensors.items()}


@dataclass(frozen=True)
class TowerShape(ABC):
    """A vision tower and its projector; a family's own file says what they are made of."""

    layers: int
    """Of the checkpoint."""
    feature_layer: int
    """The layer, from 0, whose output the projector reads; nothing behind it is exported."""
    hidden_size: int
    intermediate_size: int
    heads: int

    @property
    def merge(self) -> int:
        """Patches along a side of what one visual token stands for."""
        return 1

    @property
    def exported_layers(self) -> int:
        """Layers in the exported graph, by the default choice of attention layers."""
        return self.feature_layer + 1

    @property
    def layer_elements(self) -> int:
        """Weights of one layer's six matrices."""
        return 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size

    @abstractmethod
    def stem_tensors(self, patches: int, patch_px: int) -> Tensors:
        """In front of the first layer, for so many patches a tile."""

    @abstractmethod
    def layer_tensors(self, layer: int) -> Tensors:
        """One layer's tensors."""

    @abstractmethod
    def projector_tensors(self, text_width: int) -> Tensors:
        """The projector's."""

    def unread_tensors(self) -> Tensors:
        """What transformers' own module has behind the last layer, and no export reads."""
        return {}


@dataclass(frozen=True)
class ModelShape:
    """A whole model: decoder, tower, projector and geometry."""

    family: str
    """Its `model_type`."""
    text: TextShape
    tower: TowerShape
    tiling: TilingRules
    newline: bool
    """Whether the family has an `image_newline`."""

    @property
    def language_tensors(self) -> Tensors:
        """Of the language graph, LM head included and rotary tables not."""
        tensors: Tensors = {}
        for layer in range(self.text.layers):
            tensors |= self.text.layer_tensors(layer)
        width = self.text.hidden_size
        return tensors | {"text.norm.weight": (width,), "lm_head.weight": (self.text.vocab_size, width)}

    @property
    def tower_patches(self) -> int:
        """Of a tile, before they are merged."""
        return self.tiling.patches_per_tile * self.tower.merge**2

    @property
    def patch_px(self) -> int:
        """Side of one of them, px."""
        return self.tiling.patch_size // self.tower.merge

    @property
    def vision_tensors(self) -> Tensors:
        """Of the vision graph: the tower up to its last exported layer, and the projector."""
        tensors = self.tower.stem_tensors(self.tower_patches, self.patch_px)
        for layer in range(self.tower.exported_layers):
            tensors |= self.tower.layer_tensors(layer)
        return tensors | self.tower.projector_tensors(self.text.hidden_size)

    @property
    def embedding_tensors(self) -> Tensors:
        """Of the mapped table: token embeddings (V, D), and the newline's row where there is one."""
        tensors: Tensors = {"text.embed_tokens.weight": (self.text.vocab_size, self.text.hidden_size)}
        return tensors | ({"image_newline": (self.text.hidden_size,)} if self.newline else {})
