"""What a model family has to say to the exporter: one class a family, in a file of its own, named in `FAMILIES`.

`docs/adding-a-family.md` walks through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import nn

from hired_edge.errors import CheckpointError, InputError
from hired_edge.planner.families.family import MOST, MOST_OF_ANY
from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import TilingRules
from hired_export.checkpoint import Checkpoint
from hired_export.vision import VisionShape

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")
"""Of towers and projectors: those without parameters of their own."""


@dataclass(frozen=True)
class AttentionChoice:
    """Which CLS attention is exported; None = the default (selection: the layer that the projector reads).

    `keys`: the selection layer's keys as well, which the policies `prumerge` and `prumerge+` compare patches by.
    """

    allocation_layer: int = 0
    selection_layer: int | None = None
    heads: str = "sum"
    keys: bool = False


@dataclass(frozen=True)
class ReferenceTower:
    """transformers' own modules for a picture's way to the language model, on the meta device, without weights.

    Args:
        tower: with the attention that gives maps; its parameters have the checkpoint's names below `vision.`, and those
            of its attention's queries and keys are `q_proj` and `k_proj`.
        projector: its parameters have those below `projector.`.
        features: hidden states of the patches (T, patches, W) -> what enters the language model (T, N, D).
        attention: of a layer, its attention module and the norm in front of it.
        per_token: what is paid to each patch (T, patches) -> to each visual token (T, N).
    """

    tower: nn.Module
    projector: nn.Module
    features: Callable[[torch.Tensor], torch.Tensor]
    attention: Callable[[int], tuple[Any, Any]]
    per_token: Callable[[torch.Tensor], torch.Tensor]


class Family(ABC):
    """A family. What is below must be said, unless it has a body."""

    tower: ClassVar[str]
    """`model_type` of the vision_config that it comes with."""
    newline: ClassVar[bool] = False
    """Whether an `image_newline` is stored, for the ends of rows."""
    image_token: ClassVar[str] = "image_token_index"
    """The key of config.json that has the picture's token."""
    around: ClassVar[tuple[str, str] | None] = None
    """The keys under which tokenizer_config.json names the tokens before and behind a picture, which transformers'
    processor writes and no chat template does."""

    @abstractmethod
    def tiling(self, config: Any, checkpoint: Checkpoint) -> TilingRules:
        """How a picture is cut."""

    @abstractmethod
    def vision(self, config: Any, attention: AttentionChoice) -> VisionShape:
        """The tower and the projector.

        Raises:
            CheckpointError: an option that is not supported.
            InputError: a layer or head that the tower does not have.
        """

    @abstractmethod
    def stored_as(self, name: str) -> str:
        """The checkpoint's (canonical) name of an initialiser of the vision graph."""

    @abstractmethod
    def reference(self, config: Any) -> ReferenceTower:
        """Called on the meta device; `config` has as many layers as are to be built, and eager attention."""

    @abstractmethod
    def pixels(self, picture: Image.Image, tiling: TilingRules, rules: PreprocessRules) -> torch.Tensor:
        """What transformers' own processor makes of a picture, (T, 3, h, w), the base picture first."""

    @abstractmethod
    def stand_in_processor(self, tiling: TilingRules) -> dict[str, Any]:
        """A preprocessor_config.json for a synthetic checkpoint."""


def require(condition: bool, got: str, expected: str) -> None:
    """Raises CheckpointError about config.json unless the condition holds."""
    if not condition:
        raise CheckpointError(
            f"config.json says {got}", expected=expected, fix="use a checkpoint of a supported architecture"
        )


def require_positive(section: str, config: Any, names: Sequence[str]) -> None:
    """Raises CheckpointError unless all of these fields are whole numbers from 1 on, no larger than any model's."""
    for name in names:
        value, most = getattr(config, name), MOST.get(name, MOST_OF_ANY)
        require(type(value) is int and value >= 1, f"{section}.{name} {str(value)[:40]}", "1 or more")
        require(value <= most, f"{section}.{name} {str(value)[:40]}", f"at most {most}")


def chosen_attention(config: Any, attention: AttentionChoice) -> dict[str, Any]:
    """The fields of a `VisionShape` that say which layers and heads are read.

    Raises:
        CheckpointError: features that are not one layer's, or of a layer that the tower does not have.
        InputError: a layer or head that the tower does not have.
    """
    tower, layer = config.vision_config, config.vision_feature_layer
    strategy = config.vision_feature_select_strategy
    require(strategy == "default", f"vision_feature_select_strategy {strategy!r}", "'default' (CLS dropped)")
    require(isinstance(layer, int), f"vision_feature_layer {layer}", "one layer")
    for name, act in (("hidden_act", tower.hidden_act), ("projector_hidden_act", config.projector_hidden_act)):
        require(act in ACTIVATIONS, f"{name} {act!r}", " or ".join(ACTIVATIONS))
    require_positive("vision_config", tower, TOWER_SIZES)
    layers, heads = tower.num_hidden_layers, tower.num_attention_heads
    # hidden_states[0] is the embeddings: entry i is the output of encoder layer i - 1.
    feature_layer = (layer if layer >= 0 else layers + 1 + layer) - 1
    require(0 <= feature_layer < layers, f"vision_feature_layer {layer}", f"a layer of the tower's {layers}")
    require(tower.hidden_size % heads == 0, f"tower hidden_size {tower.hidden_size}", f"a multiple of {heads} heads")
    selection = feature_layer if attention.selection_layer is None else attention.selection_layer
    for flag, value in (("--allocation-layer", attention.allocation_layer), ("--selection-layer", selection)):
        if not 0 <= value < layers:
            raise InputError(f"{flag} {value}", expected=f"0 to {layers - 1}", fix="name one of the tower's layers")
    head = None if attention.heads == "sum" else int(attention.heads)
    if head is not None and not 0 <= head < heads:
        raise InputError(f"--heads {head}", expected=f"sum, or 0 to {heads - 1}", fix="name one of the tower's heads")
    return {
        "feature_layer": feature_layer,
        "allocation_layer": attention.allocation_layer,
        "selection_layer": selection,
        "head": head,
        "keys": attention.keys,
    }


TOWER_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
"""Fields of vision_config that say 1 or more."""
