"""What a checkpoint's config says, as data: the family, the decoder's and the tower's shapes, the geometry.

`transformers` reads the config (of version 4 and 5, with its defaults); what is not supported is refused here, before
anything is written. Adding a text model that differs by data alone is one row of `TEXT_MODELS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import logging

from hired_edge.errors import CheckpointError, InputError
from hired_edge.planner.original import hub_layout, is_original
from hired_edge.tiling import TilingRules
from hired_export.checkpoint import Checkpoint
from hired_export.decoder import DecoderShape
from hired_export.vision import VisionShape
from hired_export.vision_tower import tower_config


@dataclass(frozen=True)
class Family:
    """How a model family treats a picture."""

    tiling: str
    newline: bool


@dataclass(frozen=True)
class TextFacts:
    """Which projections have a bias: a constant, or the config field that says so."""

    qkv_bias: bool | str
    o_bias: bool | str
    mlp_bias: bool | str


FAMILIES = {"llava": Family("single", newline=False), "llava_next": Family("anyres", newline=True)}
TEXT_MODELS = {
    "llama": TextFacts("attention_bias", "attention_bias", "mlp_bias"),
    "mistral": TextFacts(False, False, False),
    "qwen2": TextFacts(True, False, False),
}
ROPE_TYPES = ("default", "linear", "llama3", "dynamic")
ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")
"""Of the tower and the projector: those without parameters of their own."""

TEXT_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
VISION_SIZES = (
    "image_size",
    "patch_size",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
)
"""Fields of config.json that say 1 or more."""
MOST_POSITIONS = 2**24
"""Up to which float32, in which rotary angles are computed, counts one by one."""


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
class ModelSpec:
    """Everything that an export needs to know about a checkpoint's architecture."""

    family: str
    facts: Family
    config: Any
    decoder: DecoderShape
    vision: VisionShape
    tiling: TilingRules
    text_type: str
    tied: bool
    vision_layers: int


def read_spec(checkpoint: Checkpoint, attention: AttentionChoice) -> ModelSpec:
    """Reads config.json.

    Raises:
        CheckpointError: a family, text model, tower or option that is not supported.
        InputError: a layer or head that the tower does not have.
    """
    given = checkpoint.config
    original = is_original(given)
    if original:
        given = dict(hub_layout(given, tower_config(checkpoint)))
    family = str(given.get("model_type"))
    _require(family in FAMILIES, f"model_type {family!r}", " or ".join(FAMILIES))
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it warns of is refused below, in one line
    try:
        config: Any = (
            CONFIG_MAPPING[family].from_dict(given)
            if original
            else AutoConfig.from_pretrained(checkpoint.root, local_files_only=True)
        )
    except Exception as error:  # transformers raises whatever a malformed config leads to
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{checkpoint.root / 'config.json'} cannot be read by transformers ({reason})",
            expected="a config.json of the LLaVA family",
            fix="download the checkpoint again",
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    text, tower = config.text_config, config.vision_config
    _require(text.model_type in TEXT_MODELS, f"text model {text.model_type!r}", " or ".join(TEXT_MODELS))
    _require(tower.model_type == "clip_vision_model", f"vision tower {tower.model_type!r}", "clip_vision_model")
    facts = FAMILIES[family]
    return ModelSpec(
        family=family,
        facts=facts,
        config=config,
        decoder=_decoder_shape(text),
        vision=_vision_shape(config, attention),
        tiling=TilingRules(facts.tiling, tower.image_size, tower.patch_size, _pinpoints(config, facts)),
        text_type=text.model_type,
        tied=bool(config.tie_word_embeddings or text.tie_word_embeddings),
        vision_layers=tower.num_hidden_layers,
    )


def rotary_tables(text_config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, (positions, Dh / 2) float32, by transformers' own formulae for every scaling."""
    positions = text_config.max_position_embeddings
    rotary = LlamaRotaryEmbedding(text_config)  # the three text models share it
    cos, sin = rotary(torch.zeros(1), torch.arange(positions)[None])
    half = cos.shape[-1] // 2  # the other half repeats the first
    return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


def _pinpoints(config: Any, facts: Family) -> tuple[tuple[int, int], ...]:
    if facts.tiling == "single":
        return ()
    given = config.image_grid_pinpoints
    _require(_are_pairs(given), f"image_grid_pinpoints {str(given)[:80]}", "pairs of whole numbers (height, width)")
    return tuple((height, width) for height, width in given)


def _are_pairs(given: Any) -> bool:
    listed = isinstance(given, (list, tuple)) and all(isinstance(pair, (list, tuple)) for pair in given)
    return listed and all(len(pair) == 2 and all(type(side) is int for side in pair) for pair in given)


def _decoder_shape(text: Any) -> DecoderShape:
    facts = TEXT_MODELS[text.model_type]
    _positive("text_config", text, TEXT_SIZES)
    positions = text.max_position_embeddings
    _require(positions <= MOST_POSITIONS, f"max_position_embeddings {positions}", f"at most {MOST_POSITIONS}")
    heads, kv_heads = text.num_attention_heads, text.num_key_value_heads
    _require(heads % kv_heads == 0, f"{heads} heads for {kv_heads} kv heads", "a whole number of heads per kv head")

    def has(rule: bool | str) -> bool:
        return bool(getattr(text, rule)) if isinstance(rule, str) else rule

    rope = text.rope_parameters
    rope_type = rope.get("rope_type", "default")
    _require(rope_type in ROPE_TYPES, f"rotary scaling {rope_type!r}", ", ".join(ROPE_TYPES))
    partial = rope.get("partial_rotary_factor", 1.0)
    _require(partial == 1.0, f"partial_rotary_factor {partial}", "1.0")
    _require(text.hidden_act == "silu", f"hidden_act {text.hidden_act!r}", "silu")
    head_dim = getattr(text, "head_dim", None)
    if head_dim is None:
        _require(text.hidden_size % heads == 0, f"hidden_size {text.hidden_size}", f"a multiple of its {heads} heads")
        head_dim = text.hidden_size // heads
    even = type(head_dim) is int and head_dim > 0 and head_dim % 2 == 0
    _require(even, f"text_config.head_dim {head_dim}", "a positive even number")
    return DecoderShape(
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=text.vocab_size,
        rms_epsilon=text.rms_norm_eps,
        positions=positions,
        qkv_bias=has(facts.qkv_bias),
        o_bias=has(facts.o_bias),
        mlp_bias=has(facts.mlp_bias),
        sliding_window=_sliding_window(text),
    )


def _sliding_window(text: Any) -> int | None:
    """The window that every layer shares; None where no layer has one."""
    window = getattr(text, "sliding_window", None)
    kinds: Sequence[str] = getattr(text, "layer_types", None) or []
    windowed = [kind == "sliding_attention" for kind in kinds] or [window is not None]
    if window is None or not any(windowed):
        return None
    _require(all(windowed), f"a sliding window of {window} in some layers only", "the same attention in every layer")
    return window


def _vision_shape(config: Any, attention: AttentionChoice) -> VisionShape:
    tower, layer = config.vision_config, config.vision_feature_layer
    strategy = config.vision_feature_select_strategy
    _require(strategy == "default", f"vision_feature_select_strategy {strategy!r}", "'default' (CLS dropped)")
    _require(isinstance(layer, int), f"vision_feature_layer {layer}", "one layer")
    for name, act in (("hidden_act", tower.hidden_act), ("projector_hidden_act", config.projector_hidden_act)):
        _require(act in ACTIVATIONS, f"{name} {act!r}", " or ".join(ACTIVATIONS))
    _positive("vision_config", tower, VISION_SIZES)
    layers = tower.num_hidden_layers
    # hidden_states[0] is the embeddings: entry i is the output of encoder layer i - 1.
    feature_layer = (layer if layer >= 0 else layers + 1 + layer) - 1
    _require(0 <= feature_layer < layers, f"vision_feature_layer {layer}", f"a layer of the tower's {layers}")
    selection = attention.selection_layer
    heads = tower.num_attention_heads
    _require(tower.hidden_size % heads == 0, f"tower hidden_size {tower.hidden_size}", f"a multiple of {heads} heads")
    chosen = {"--allocation-layer": attention.allocation_layer}
    chosen["--selection-layer"] = feature_layer if selection is None else selection
    for flag, value in chosen.items():
        if not 0 <= value < layers:
            raise InputError(f"{flag} {value}", expected=f"0 to {layers - 1}", fix="name one of the tower's layers")
    head = None if attention.heads == "sum" else int(attention.heads)
    if head is not None and not 0 <= head < heads:
        raise InputError(f"--heads {head}", expected=f"sum, or 0 to {heads - 1}", fix="name one of the tower's heads")
    return VisionShape(
        image_size=tower.image_size,
        patch_size=tower.patch_size,
        hidden_size=tower.hidden_size,
        intermediate_size=tower.intermediate_size,
        heads=heads,
        activation=tower.hidden_act,
        layer_norm_epsilon=tower.layer_norm_eps,
        feature_layer=feature_layer,
        allocation_layer=chosen["--allocation-layer"],
        selection_layer=chosen["--selection-layer"],
        head=head,
        keys=attention.keys,
        text_width=config.text_config.hidden_size,
        projector_activation=config.projector_hidden_act,
        projector_bias=config.multimodal_projector_bias,
    )


def _positive(section: str, config: Any, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(config, name)
        _require(type(value) is int and value >= 1, f"{section}.{name} {value}", "1 or more")


def _require(condition: bool, got: str, expected: str) -> None:
    if not condition:
        raise CheckpointError(
            f"config.json says {got}", expected=expected, fix="use a checkpoint of a supported architecture"
        )
