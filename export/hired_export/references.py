"""transformers' own modules, filled piece by piece with a checkpoint's weights: what the parity check compares with.

A matrix that the bundle stores quantised is quantised and dequantised first, so that what remains to be compared is the
graph. Only the piece at hand is in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForCausalLM

from hired_edge.manifest import FloatType
from hired_export.checkpoint import Checkpoint
from hired_export.families import ModelSpec, ReferenceTower
from hired_export.fused import parts_of
from hired_export.quantisation import Scheme, dequantise
from hired_export.sources import Schemes, head_name
from hired_export.tensor import Tensor


class References:
    """Builds reference modules from a checkpoint; float32, evaluation mode.

    Args:
        stored: how the bundle stores the weights.
    """

    def __init__(self, checkpoint: Checkpoint, spec: ModelSpec, stored: Schemes) -> None:
        self.spec = spec
        self._checkpoint, self._spec, self._stored = checkpoint, spec, stored

    def vision(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(T, 3, h, w) -> projected features (T, N, D), allocation and selection attention (T, N), keys (T, N, W)."""
        shape = self._spec.vision
        built = self._reference(shape.layers)
        hidden = built.tower(pixels, output_hidden_states=True).hidden_states
        features = built.features(hidden[shape.feature_layer + 1][:, 1:])

        def row(layer: int) -> torch.Tensor:
            attention, norm = built.attention(layer)
            prefix = next(name for name, module in built.tower.named_modules() if module is attention)
            for part in ("q_proj", "k_proj"):  # as they are: what HiRED reads is never rounded
                self._fill(getattr(attention, part), f"vision.{prefix.removeprefix('vision_model.')}.{part}.")
            maps = attention(norm(hidden[layer]))[1]
            heads = maps[:, :, 0, 1:]  # (T, H, patches)
            return built.per_token(heads.sum(1) if shape.head is None else heads[:, shape.head])

        found = features, row(shape.allocation_layer), row(shape.selection_layer)
        if not shape.keys:
            return found
        attention, norm = built.attention(shape.selection_layer)
        return *found, attention.k_proj(norm(hidden[shape.selection_layer]))[:, 1:]

    def tower(self, layers: int) -> tuple[Any, Any]:
        """The first `layers` of the tower, with the attention that gives maps, and the projector."""
        built = self._reference(layers)
        return built.tower, built.projector

    def _reference(self, layers: int) -> ReferenceTower:
        config = copy.deepcopy(self._spec.config)
        config.vision_config.num_hidden_layers = layers
        config.vision_config._attn_implementation = "eager"  # the only one that returns attention maps
        with torch.device("meta"):
            built = self._spec.facts.reference(config)
        self._fill(built.tower, "vision.", self._stored.vision)
        self._fill(built.projector, "projector.", self._stored.vision)
        return built

    def layer(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """One decoder layer on (1, S, D), causal, from position 0."""
        _, run = self.runner(index)
        return run(hidden)

    def runner(self, index: int) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]:
        """One decoder layer, and what runs it on (1, S, D), causal, from position 0."""
        model = self._decoder(layers=[index])
        seen: list[torch.Tensor] = []
        model.model.layers[0].register_forward_hook(lambda _m, _i, output: seen.append(output))

        def run(hidden: torch.Tensor) -> torch.Tensor:
            model.model(inputs_embeds=hidden, use_cache=False)
            output = seen.pop()
            return output[0] if isinstance(output, tuple) else output

        return model.model.layers[0], run

    def weight(self, name: str) -> NDArray[np.float32]:
        """A matrix of the decoder (outputs, inputs), by its canonical name without ".weight", as it is stored."""
        tensor = self._checkpoint.tensors[f"{name}.weight"]
        return tensor.rows(0, tensor.shape[0])

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final norm and LM head on (1, D)."""
        model = self._decoder(layers=[], head=True)
        return model.lm_head(model.model.norm(hidden))

    def whole(self, embeds: torch.Tensor) -> torch.Tensor:
        """The whole text model on (1, S, D): logits (1, S, V)."""
        model = self._decoder(layers=list(range(self._spec.decoder.layers)), head=True)
        return model(inputs_embeds=embeds, use_cache=False).logits

    def _decoder(self, layers: list[int], *, head: bool = False) -> Any:
        config = copy.deepcopy(self._spec.config.text_config)
        config.num_hidden_layers = len(layers)
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[i] for i in layers]
        config.tie_word_embeddings = False
        config._attn_implementation = "sdpa"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        model.model.embed_tokens = nn.Identity()  # embeddings are given
        if not head:
            model.lm_head = nn.Identity()
        for i, layer in enumerate(layers):
            self._fill(model.model.layers[i], f"text.layers.{layer}.", self._stored.decoder)
        self._fill(model.model.norm, "text.norm.")
        if head:
            prefix = head_name(self._checkpoint, self._spec).removesuffix("weight")
            self._fill(model.lm_head, prefix, self._stored.lm_head)
        model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers were made on the meta device
        return model.eval()

    def _fill(self, module: nn.Module, prefix: str, scheme: Scheme | None = None) -> None:
        weights = {}
        for name, parameter in module.named_parameters():
            stored = prefix + name.removeprefix("vision_model.")
            parts = parts_of(self._spec.text_type, stored) or (stored,)
            if parts[0] in self._checkpoint.tensors:
                used = scheme if parameter.ndim == 2 and "embedding" not in name else None
                weights[name] = torch.from_numpy(self._joined(parts, tuple(parameter.shape), used))
        module.load_state_dict(weights, strict=False, assign=True)
        for name, buffer in list(module.named_buffers()):
            if buffer.is_meta:  # position ids, the only buffers of these modules
                parent, _, leaf = name.rpartition(".")
                module.get_submodule(parent)._buffers[leaf] = torch.arange(buffer.shape[-1]).expand(buffer.shape)
        left = [name for name, parameter in module.named_parameters() if parameter.is_meta]
        unread = ("post_layernorm",)  # of the tower: nothing that is exported reads it
        assert all(any(part in name for part in unread) for name in left), f"unfilled: {left}"
        module.eval()

    def _joined(self, parts: tuple[str, ...], shape: tuple[int, ...], scheme: Scheme | None) -> NDArray[np.float32]:
        """Tensors below each other, rounded as in the bundle; of one alone no copy is made."""
        if len(parts) == 1:
            return _as_in_bundle(self._checkpoint.tensor(parts[0], shape), scheme, self._stored.dtype)
        rows = [_as_in_bundle(self._checkpoint.tensors[part], scheme, self._stored.dtype) for part in parts]
        whole = np.concatenate(rows)
        assert whole.shape == shape, (parts, whole.shape, shape)
        return whole


def _as_in_bundle(tensor: Tensor, scheme: Scheme | None, dtype: FloatType) -> NDArray[np.float32]:
    """A tensor after the rounding of `scheme`, or else to `dtype`; besides the result only a chunk of rows is held."""
    if scheme is None:
        parts = (rows.astype(dtype, copy=False) for rows in tensor.chunks())
    else:
        parts = (dequantise(*stored, scheme, tensor.shape[1]) for _, stored in tensor.quantised_chunks(scheme))
    filled = np.empty(tensor.shape, np.float32)
    start = 0
    for rows in parts:
        filled[start : start + len(rows)] = rows
        start += len(rows)
    return filled
