"""CLIP's vision tower with LLaVA's projector, in the checkpoints' own names below `vision_model.`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from hired_export.ops import Projection, onnx_op, parameter, reshape
from hired_export.vision import LayerNorm, VisionAttention, VisionEncoder, VisionLayer, VisionMLP, VisionShape


@dataclass(frozen=True)
class ClipShape(VisionShape):
    """A CLIP tower, and whether the projector has biases."""

    projector_bias: bool

    @property
    def encoder(self) -> type[ClipEncoder]:
        return ClipEncoder


class ClipAttention(VisionAttention):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__(shape)
        width = shape.hidden_size
        self.q_proj, self.k_proj, self.v_proj = (Projection(width, width, True) for _ in range(3))
        self.out_proj = Projection(width, width, True)

    def queries(self, x: Tensor) -> Tensor:
        return self.q_proj(x)

    def keys(self, x: Tensor) -> Tensor:
        return self.k_proj(x)

    def values(self, x: Tensor) -> Tensor:
        return self.v_proj(x)

    def out(self, x: Tensor) -> Tensor:
        return self.out_proj(x)


class ClipLayer(VisionLayer):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(shape.hidden_size, shape.layer_norm_epsilon)
        self.self_attn = ClipAttention(shape)
        self.layer_norm2 = LayerNorm(shape.hidden_size, shape.layer_norm_epsilon)
        self.mlp = VisionMLP(shape)

    def attending(self) -> VisionAttention:
        return self.self_attn

    def normed(self, x: Tensor) -> Tensor:
        return self.layer_norm1(x)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Projector(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.linear_1 = Projection(shape.hidden_size, shape.text_width, shape.projector_bias)
        self.linear_2 = Projection(shape.text_width, shape.text_width, shape.projector_bias)
        self.activation = ACT2FN[shape.projector_activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


class Embeddings(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.class_embedding = parameter(width)
        self.patch_embedding = nn.Conv2d(3, width, shape.patch_size, stride=shape.patch_size, bias=False)
        self.position_embedding = nn.Embedding(shape.patches + 1, width)

    def forward(self, pixel_values: Tensor) -> Tensor:
        weight = self.patch_embedding.weight  # (width, 3, patch, patch)
        width, _, patch, _ = weight.shape
        side = pixel_values.shape[-1] // patch
        grid = (pixel_values.shape[0], width, side, side)
        # By name: torch's own comes out with a bias of zeros that the graph computes.
        convolved = onnx_op("Conv", (pixel_values, weight), grid, version=22, strides=[patch, patch])
        patches = reshape(convolved, side * side).transpose(1, 2)  # (T, N, width)
        cls = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat((cls, patches), dim=1) + self.position_embedding.weight


class ClipEncoder(VisionEncoder):
    """See `VisionEncoder`."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__(shape)
        self.embeddings = Embeddings(shape)
        self.pre_layrnorm = LayerNorm(shape.hidden_size, shape.layer_norm_epsilon)  # the checkpoints' own spelling
        self.layers = nn.ModuleList(ClipLayer(shape) for _ in range(shape.layers))
        self.multi_modal_projector = Projector(shape)

    def embedded(self, pixel_values: Tensor) -> Tensor:
        return self.pre_layrnorm(self.embeddings(pixel_values))

    def projected(self, features: Tensor) -> Tensor:
        return self.multi_modal_projector(features)
