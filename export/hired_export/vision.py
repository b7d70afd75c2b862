"""The CLIP vision tower with its projector, built from fake tensors, and the two rows of attention that HiRED reads.

The tower keeps a fused attention; beside it, at the allocation and the selection layer only, the CLS query's row is
computed once more in fp32 (paper section 3.2; reference: one query against N + 1 keys, the CLS key dropped afterwards,
nothing renormalised). The graph ends with the last layer that anything reads: the rest of the tower is never exported.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from hired_export.ops import Projection, onnx_op, parameter, reshape, rows


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a CLIP tower and its projector, and the layers (counted from 0) that are read.

    `feature_layer` is the layer whose output the projector reads; `head` sums over heads where None; with `keys`, those
    of the selection layer are an output too.
    """

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    activation: str
    layer_norm_epsilon: float
    feature_layer: int
    allocation_layer: int
    selection_layer: int
    head: int | None
    keys: bool
    text_width: int
    projector_activation: str
    projector_bias: bool

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def layers(self) -> int:
        """Layers to export: all up to the last one needed."""
        return 1 + max(self.feature_layer, self.allocation_layer, self.selection_layer)


class LayerNorm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.bias = parameter(size), parameter(size)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.epsilon)


class VisionAttention(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.heads, self.head_dim, self.head = shape.heads, width // shape.heads, shape.head
        self.q_proj, self.k_proj, self.v_proj = (Projection(width, width, True) for _ in range(3))
        self.out_proj = Projection(width, width, True)

    def _split(self, x: Tensor) -> Tensor:  # (T, N + 1, H * Dh) -> (T, H, N + 1, Dh)
        return reshape(x, self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._split(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        mixed = onnx_op("Attention", (q, k, v), q.shape, version=23).transpose(1, 2)
        return self.out_proj(reshape(mixed, x.shape[2]))

    def cls_row(self, x: Tensor) -> Tensor:
        """Attention of the CLS query to the N patches, summed over heads (or of one head): (T, N), fp32."""
        query = self._split(self.q_proj(rows(x, 0, 1))).float() * self.head_dim**-0.5  # (T, H, 1, Dh)
        keys = self._split(self.k_proj(x)).float()  # (T, H, N + 1, Dh)
        weights = torch.softmax(query @ keys.transpose(2, 3), dim=-1).squeeze(2)  # (T, H, N + 1)
        one = weights.sum(1) if self.head is None else rows(weights, self.head, self.head + 1).squeeze(1)
        return rows(one, 1, x.shape[1])


class VisionMLP(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.fc1 = Projection(shape.hidden_size, shape.intermediate_size, True)
        self.fc2 = Projection(shape.intermediate_size, shape.hidden_size, True)
        self.activation = ACT2FN[shape.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class VisionLayer(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(shape.hidden_size, shape.layer_norm_epsilon)
        self.self_attn = VisionAttention(shape)
        self.layer_norm2 = LayerNorm(shape.hidden_size, shape.layer_norm_epsilon)
        self.mlp = VisionMLP(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Projector(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.linear_1 = Projection(shape.hidden_size, shape.text_width, shape.projector_bias)
        self.linear_2 = Projection(shape.text_width, shape.text_width, shape.projector_bias)
        self.activation = ACT2FN[shape.projector_activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


class Embeddings(nn.Module):
    def __init__(self, shape: VisionShape) -> None:
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


class VisionEncoder(nn.Module):
    """pixel_values (T, 3, h, w) -> image_features (T, N, D), allocation_ and selection_attention (T, N).

    With `shape.keys`, also selection_keys (T, N, W), fp32: the selection layer's keys, its heads side by side.
    """

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.pre_layrnorm = LayerNorm(shape.hidden_size, shape.layer_norm_epsilon)  # the checkpoints' own spelling
        self.layers = nn.ModuleList(VisionLayer(shape) for _ in range(shape.layers))
        self.multi_modal_projector = Projector(shape)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        shape = self.shape
        x = self.pre_layrnorm(self.embeddings(pixel_values))
        attention: dict[int, Tensor] = {}
        features = keys = x
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, VisionLayer)
            if i in (shape.allocation_layer, shape.selection_layer):
                attention[i] = layer.self_attn.cls_row(layer.layer_norm1(x))
            if shape.keys and i == shape.selection_layer:
                keys = layer.self_attn.k_proj(layer.layer_norm1(x))
            x = layer(x)  # where nothing reads the last layer's output, export drops it as dead code
            if i == shape.feature_layer:
                features = rows(x, 1, shape.patches + 1)
        projected = self.multi_modal_projector(features)
        allocation, selection = attention[shape.allocation_layer], attention[shape.selection_layer]
        if selection is allocation:
            selection = selection.clone()  # one tensor cannot be two outputs of a graph
        if shape.keys:
            return projected, allocation, selection, rows(keys, 1, shape.patches + 1).float()
        return projected, allocation, selection
