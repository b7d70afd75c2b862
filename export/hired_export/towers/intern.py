"""InternViT with InternVL's projector, in the names that checkpoints of transformers' classes have.

Around CLIP's attention and MLP it has no norm in front of the first layer, a factor a channel behind each branch
(`lambda_1`, `lambda_2`), biases of queries, keys and values that may be missing, norms that may be RMS norms and, in
the 6B towers, a norm over queries and keys before they are split into heads. The projector reads blocks of 2 x 2
patches side by side (pixel shuffle), behind a layer norm: a block is a visual token, and what the CLS query pays to it
is the sum over its patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from hired_export.decoder import RMSNorm
from hired_export.ops import Projection, onnx_op, parameter, reshape
from hired_export.vision import LayerNorm, VisionAttention, VisionEncoder, VisionLayer, VisionMLP, VisionShape

QK_EPSILON = 1e-6
"""Of the norm over queries and keys, whatever the config says of the others (modeling_internvl.py)."""
PROJECTOR_EPSILON = 1e-5
"""Of the projector's norm: torch's own."""


@dataclass(frozen=True)
class InternShape(VisionShape):
    """InternViT's own. `norm`: "layer_norm" or "rms_norm"; `merge`: patches along a side of a visual token."""

    norm: str
    qkv_bias: bool
    qk_norm: bool
    merge: int

    @property
    def encoder(self) -> type[InternEncoder]:
        return InternEncoder


class InternAttention(VisionAttention):
    def __init__(self, shape: InternShape) -> None:
        super().__init__(shape)
        width = shape.hidden_size
        self.q_proj, self.k_proj, self.v_proj = (Projection(width, width, shape.qkv_bias) for _ in range(3))
        self.projection_layer = Projection(width, width, True)
        self.q_norm = RMSNorm(width, QK_EPSILON) if shape.qk_norm else None
        self.k_norm = RMSNorm(width, QK_EPSILON) if shape.qk_norm else None

    def queries(self, x: Tensor) -> Tensor:
        made = self.q_proj(x)
        return made if self.q_norm is None else self.q_norm(made)

    def keys(self, x: Tensor) -> Tensor:
        made = self.k_proj(x)
        return made if self.k_norm is None else self.k_norm(made)

    def values(self, x: Tensor) -> Tensor:
        return self.v_proj(x)

    def out(self, x: Tensor) -> Tensor:
        return self.projection_layer(x)


def _norm(shape: InternShape) -> nn.Module:
    kind = {"layer_norm": LayerNorm, "rms_norm": RMSNorm}[shape.norm]
    return kind(shape.hidden_size, shape.layer_norm_epsilon)


class InternLayer(VisionLayer):
    def __init__(self, shape: InternShape) -> None:
        super().__init__()
        self.lambda_1, self.lambda_2 = parameter(shape.hidden_size), parameter(shape.hidden_size)
        self.attention = InternAttention(shape)
        self.mlp = VisionMLP(shape)
        self.layernorm_before, self.layernorm_after = _norm(shape), _norm(shape)

    def attending(self) -> VisionAttention:
        return self.attention

    def normed(self, x: Tensor) -> Tensor:
        return self.layernorm_before(x)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.lambda_1 * self.attention(self.layernorm_before(x))
        return x + self.lambda_2 * self.mlp(self.layernorm_after(x))


class InternProjector(nn.Module):
    def __init__(self, shape: InternShape) -> None:
        super().__init__()
        merged = shape.hidden_size * shape.merge**2
        self.layer_norm = LayerNorm(merged, PROJECTOR_EPSILON)
        self.linear_1 = Projection(merged, shape.text_width, True)
        self.linear_2 = Projection(shape.text_width, shape.text_width, True)
        self.activation = ACT2FN[shape.projector_activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(self.layer_norm(x))))


class PatchEmbeddings(nn.Module):
    def __init__(self, shape: InternShape) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, shape.hidden_size, shape.patch_size, stride=shape.patch_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        weight, bias = self.projection.weight, self.projection.bias
        assert bias is not None
        width, _, patch, _ = weight.shape
        side = pixel_values.shape[-1] // patch
        grid = (pixel_values.shape[0], width, side, side)
        convolved = onnx_op("Conv", (pixel_values, weight, bias), grid, version=22, strides=[patch, patch])
        return reshape(convolved, side * side).transpose(1, 2)  # (T, N, width)


class InternEmbeddings(nn.Module):
    def __init__(self, shape: InternShape) -> None:
        super().__init__()
        self.cls_token = parameter(1, 1, shape.hidden_size)
        self.position_embeddings = parameter(1, shape.patches + 1, shape.hidden_size)
        self.patch_embeddings = PatchEmbeddings(shape)

    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.patch_embeddings(pixel_values)
        cls = self.cls_token.expand(patches.shape[0], -1, -1)
        return torch.cat((cls, patches), dim=1) + self.position_embeddings


class InternEncoder(VisionEncoder):
    """See `VisionEncoder`."""

    shape: InternShape

    def __init__(self, shape: InternShape) -> None:
        super().__init__(shape)
        self.embeddings = InternEmbeddings(shape)
        self.layers = nn.ModuleList(InternLayer(shape) for _ in range(shape.layers))
        self.multi_modal_projector = InternProjector(shape)

    def embedded(self, pixel_values: Tensor) -> Tensor:
        return self.embeddings(pixel_values)

    def projected(self, features: Tensor) -> Tensor:
        return self.multi_modal_projector(self._shuffled(features))

    def per_token(self, attention: Tensor) -> Tensor:
        side, merge = self._side, self.shape.merge
        blocks = _split(attention, side, merge, side, merge)  # (T, N)
        return _split(blocks.sum((2, 4)), side**2)

    @property
    def _side(self) -> int:
        """Visual tokens along a side of a tile."""
        return self.shape.image_size // self.shape.patch_size // self.shape.merge

    def _shuffled(self, features: Tensor) -> Tensor:
        """(T, patches, W) -> (T, N, merge^2 W): row by row, the patches of a block in raster order."""
        side, merge, width = self._side, self.shape.merge, self.shape.hidden_size
        blocks = _split(features, side, merge, side, merge * width).transpose(2, 3)
        return _split(blocks, side**2, merge**2 * width)


def _split(x: Tensor, *tail: int) -> Tensor:
    """(T, ...) -> (T, *tail), the target a constant."""
    target = torch.tensor([0, *tail])
    return onnx_op("Reshape", (x, target), (x.shape[0], *tail), version=21)
