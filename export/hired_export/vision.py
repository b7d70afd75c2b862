"""What every family's vision graph does: a tower with its projector, and the two rows of attention that HiRED reads.

It is built from fake tensors. The tower keeps a fused attention; beside it, at the allocation and the selection layer
only, the CLS query's row is computed once more in fp32 (paper section 3.2; reference: one query against N + 1 keys, the
CLS key dropped afterwards, nothing renormalised). The graph ends with the last layer that anything reads: the rest of
the tower is never exported. What a tower is made of is its own file in `hired_export.towers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from hired_export.ops import Projection, onnx_op, parameter, reshape, rows


@dataclass(frozen=True)
class VisionShape(ABC):
    """Sizes of a tower and its projector, and the layers (counted from 0) that are read.

    `feature_layer` is the layer whose output the projector reads; `head` sums over heads where None; with `keys`, those
    of the selection layer are an output too. A tower's file adds fields of its own.
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

    @property
    @abstractmethod
    def encoder(self) -> type[VisionEncoder]:
        """The module that is built of this shape."""

    @property
    def patches(self) -> int:
        """Of the tower, a tile."""
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


class VisionAttention(nn.Module, ABC):
    """Its projections have the names that the checkpoint gives them, so they are a tower's own."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.heads, self.head_dim, self.head = shape.heads, shape.hidden_size // shape.heads, shape.head

    @abstractmethod
    def queries(self, x: Tensor) -> Tensor:
        """(T, S, W) -> (T, S, H * Dh)."""

    @abstractmethod
    def keys(self, x: Tensor) -> Tensor:
        """As `queries`."""

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:
        """As `queries`."""

    @abstractmethod
    def out(self, x: Tensor) -> Tensor:
        """(T, S, H * Dh) -> (T, S, W)."""

    def _split(self, x: Tensor) -> Tensor:  # (T, N + 1, H * Dh) -> (T, H, N + 1, Dh)
        return reshape(x, self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._split(part(x)) for part in (self.queries, self.keys, self.values))
        mixed = onnx_op("Attention", (q, k, v), q.shape, version=23).transpose(1, 2)
        return self.out(reshape(mixed, x.shape[2]))

    def cls_row(self, x: Tensor) -> Tensor:
        """Attention of the CLS query to the patches, summed over heads (or of one head): (T, patches), fp32."""
        query = self._split(self.queries(rows(x, 0, 1))).float() * self.head_dim**-0.5  # (T, H, 1, Dh)
        keys = self._split(self.keys(x)).float()  # (T, H, N + 1, Dh)
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


class VisionLayer(nn.Module, ABC):
    """One of the tower's layers: what goes into its attention, and the whole of it."""

    @abstractmethod
    def attending(self) -> VisionAttention:
        """Its attention."""

    @abstractmethod
    def normed(self, x: Tensor) -> Tensor:
        """What the attention is given for the layer's input."""


class VisionEncoder(nn.Module, ABC):
    """pixel_values (T, 3, h, w) -> image_features (T, N, D), allocation_ and selection_attention (T, N).

    With `shape.keys`, also selection_keys (T, N, W), fp32: the selection layer's keys, its heads side by side. N are
    visual tokens: a tower's patches, or blocks of them (`per_token`).
    """

    layers: nn.ModuleList

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.shape = shape

    @abstractmethod
    def embedded(self, pixel_values: Tensor) -> Tensor:
        """What the first layer is given, (T, patches + 1, W), the CLS token first."""

    @abstractmethod
    def projected(self, features: Tensor) -> Tensor:
        """(T, patches, W) -> (T, N, D)."""

    def per_token(self, attention: Tensor) -> Tensor:
        """(T, patches) -> (T, N): what the CLS query pays to a visual token."""
        return attention

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        shape = self.shape
        x = self.embedded(pixel_values)
        attention: dict[int, Tensor] = {}
        features = keys = x
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, VisionLayer)
            if i in (shape.allocation_layer, shape.selection_layer):
                attention[i] = self.per_token(layer.attending().cls_row(layer.normed(x)))
            if shape.keys and i == shape.selection_layer:
                keys = layer.attending().keys(layer.normed(x))
            x = layer(x)  # where nothing reads the last layer's output, export drops it as dead code
            if i == shape.feature_layer:
                features = rows(x, 1, shape.patches + 1)
        projected = self.projected(features)
        allocation, selection = attention[shape.allocation_layer], attention[shape.selection_layer]
        if selection is allocation:
            selection = selection.clone()  # one tensor cannot be two outputs of a graph
        if shape.keys:
            return projected, allocation, selection, rows(keys, 1, shape.patches + 1).float()
        return projected, allocation, selection
