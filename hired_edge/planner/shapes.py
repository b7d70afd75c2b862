"""The sizes of a LLaVA-family model that memory and time depend on, and the tensors that an export stores of it.

Names are the exporter's canonical ones (`text.*`, `lm_head.weight`, `vision.*`, `projector.*`, `image_newline`), shapes
as in a checkpoint: a matrix is (outputs, inputs). How many bytes a tensor takes is `storage.py`'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hired_edge.tiling import TilingRules

Tensors = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TextShape:
    """A decoder: Llama, Mistral or Qwen2. Sizes are in elements."""

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
class TowerShape:
    """A CLIP vision tower."""

    layers: int
    """Of the checkpoint."""
    feature_layer: int
    """The layer, from 0, whose output the projector reads; nothing behind it is exported."""
    hidden_size: int
    intermediate_size: int
    heads: int

    @property
    def exported_layers(self) -> int:
        """Layers in the exported graph, by the default choice of attention layers."""
        return self.feature_layer + 1

    @property
    def layer_elements(self) -> int:
        """Weights of one layer's six matrices."""
        return 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size

    def layer_tensors(self, layer: int) -> Tensors:
        """One layer's tensors."""
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


@dataclass(frozen=True)
class ModelShape:
    """A whole model: decoder, tower, projector and geometry."""

    family: str
    """ "llava" or "llava_next"."""
    text: TextShape
    tower: TowerShape
    tiling: TilingRules
    projector_bias: bool
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
    def vision_tensors(self) -> Tensors:
        """Of the vision graph: the tower up to its last exported layer, and the projector."""
        width, patch = self.tower.hidden_size, self.tiling.patch_size
        tensors: Tensors = {
            "vision.embeddings.class_embedding": (width,),
            "vision.embeddings.patch_embedding.weight": (width, 3, patch, patch),
            "vision.embeddings.position_embedding.weight": (self.tiling.patches_per_tile + 1, width),
            "vision.pre_layrnorm.weight": (width,),
            "vision.pre_layrnorm.bias": (width,),
        }
        for layer in range(self.tower.exported_layers):
            tensors |= self.tower.layer_tensors(layer)
        out = self.text.hidden_size
        for name, inputs in (("linear_1", width), ("linear_2", out)):
            tensors[f"projector.{name}.weight"] = (out, inputs)
            if self.projector_bias:
                tensors[f"projector.{name}.bias"] = (out,)
        return tensors

    @property
    def embedding_tensors(self) -> Tensors:
        """Of the mapped table: token embeddings (V, D), and the newline's row where there is one."""
        tensors: Tensors = {"text.embed_tokens.weight": (self.text.vocab_size, self.text.hidden_size)}
        return tensors | ({"image_newline": (self.text.hidden_size,)} if self.newline else {})
