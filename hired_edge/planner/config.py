"""config.json -> `ModelShape`, with what transformers' config classes fill in where a file leaves keys out.

Two layouts are read: the Hub's (`text_config` and `vision_config`, of transformers 4 and 5), and the original one
(`original.py`; the decoder's keys at the top, the tower by name). What it does not know: whether an export
supports the activation or the rotary scaling (the exporter refuses those), since no byte depends on them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hired_edge.errors import CheckpointError, InputError
from hired_edge.planner.defaults import CLIP, CLIP_L_336, FAMILIES, SEVEN_B, TEXT_MODELS, Text
from hired_edge.planner.original import hub_layout, pinpoints, refused
from hired_edge.planner.published import PUBLISHED
from hired_edge.planner.shapes import ModelShape, TextShape, TowerShape
from hired_edge.tiling import TilingRules

CONFIG_NAME = "config.json"
MOST_BYTES = 2**24
"""Of a file that is read as a config."""


def read_config(where: str) -> dict[str, Any]:
    """A config.json: of a checkpoint's folder, a file, or the name of a published model ("llava-1.5-7b").

    Raises:
        InputError: nothing of that name.
        CheckpointError: it cannot be read, or is no JSON object.
    """
    path = Path(where)
    if os.path.isdir(path):  # which, unlike Path's, answers no for a name that is too long
        path = path / CONFIG_NAME
    elif not os.path.exists(path) and where in PUBLISHED:
        return dict(PUBLISHED[where].config)
    if not os.path.exists(path):
        raise InputError(
            f"{str(path)[:200]} does not exist",
            expected=f"a checkpoint's folder, its config.json, or one of {', '.join(PUBLISHED)}",
            fix="check the path",
        )
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{path} cannot be read ({reason})", expected="a JSON file", fix="download the file again"
        ) from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object", expected="one", fix="download the file again")
    return config


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """The sizes that a config gives.

    Raises:
        CheckpointError: a family, text model or tower that is not supported, or a size that is none.
    """
    config = hub_layout(config)
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise refused(f"model_type {str(config.get('model_type'))[:40]!r}", " or ".join(FAMILIES))
    top = {**family.defaults, **_given(config)}
    text, tower = _section(config, "text_config", "llama"), _section(config, "vision_config", "clip_vision_model")
    if tower["model_type"] != "clip_vision_model":
        raise refused(f"vision tower {str(tower['model_type'])[:40]!r}", "clip_vision_model")
    tower = {**(CLIP_L_336 if config.get("vision_config") is None else CLIP), **tower}
    grids = pinpoints(top["image_grid_pinpoints"]) if family.tiling == "anyres" else ()
    sizes = _sizes("vision_config", tower, tuple(CLIP))
    tied = bool(top["tie_word_embeddings"]) or bool(text.get("tie_word_embeddings", False))
    return ModelShape(
        family=str(config["model_type"]),
        text=_text(text, tied),
        tower=TowerShape(
            layers=sizes["num_hidden_layers"],
            feature_layer=_feature_layer(top["vision_feature_layer"], sizes["num_hidden_layers"]),
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            heads=sizes["num_attention_heads"],
        ),
        tiling=TilingRules(family.tiling, sizes["image_size"], sizes["patch_size"], grids),
        projector_bias=bool(top["multimodal_projector_bias"]),
        newline=family.newline,
    )


def _section(config: Mapping[str, Any], name: str, model_type: str) -> dict[str, Any]:
    section = config.get(name) or {}
    if not isinstance(section, Mapping):
        raise refused(f"{name} {type(section).__name__}", "an object")
    return {"model_type": model_type, **_given(section)}


def _given(section: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null, but for two keys where that says something: no window; as many kv heads as heads."""
    kept_null = ("sliding_window", "num_key_value_heads")
    return {key: value for key, value in section.items() if value is not None or key in kept_null}


def _text(given: Mapping[str, Any], tied: bool) -> TextShape:
    facts = TEXT_MODELS.get(str(given["model_type"]))
    if facts is None:
        raise refused(f"text model {str(given['model_type'])[:40]!r}", " or ".join(TEXT_MODELS))
    text = {**facts.defaults, **given}
    if text.get("num_key_value_heads") is None:
        text["num_key_value_heads"] = text["num_attention_heads"]
    names = (*SEVEN_B, "intermediate_size", "num_key_value_heads", "max_position_embeddings")
    sizes = _sizes("text_config", text, names)
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    if heads % kv_heads:
        raise refused(f"{heads} heads for {kv_heads} kv heads", "a whole number of heads per kv head")
    text.setdefault("head_dim", sizes["hidden_size"] // heads)
    head_dim = _sizes("text_config", text, ("head_dim",))["head_dim"]

    def has(rule: bool | str) -> bool:
        return bool(text[rule]) if isinstance(rule, str) else rule

    return TextShape(
        model_type=str(given["model_type"]),
        layers=sizes["num_hidden_layers"],
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=sizes["vocab_size"],
        positions=sizes["max_position_embeddings"],
        sliding_window=_window(text, facts, sizes["num_hidden_layers"]),
        qkv_bias=has(facts.qkv_bias),
        o_bias=has(facts.o_bias),
        mlp_bias=has(facts.mlp_bias),
        tied=tied,
    )


def _window(text: Mapping[str, Any], facts: Text, layers: int) -> int | None:
    """The window that every layer shares; None where no layer has one."""
    window = text.get("sliding_window")
    if window is None or (facts.window_switch and not text.get(facts.window_switch, False)):
        return None
    window = _sizes("text_config", text, ("sliding_window",))["sliding_window"]
    kinds = text.get("layer_types")
    first = text.get("max_window_layers", 0)  # of qwen2: the layers before it see everything
    if type(first) is not int or not isinstance(kinds, (list, type(None))):
        got = f"max_window_layers {str(first)[:40]} and layer_types {str(kinds)[:40]}"
        raise refused(got, "a whole number, and a list where there is one")
    windowed = [kind == "sliding_attention" for kind in kinds] if kinds else [i >= first for i in range(layers)]
    if any(windowed) and not all(windowed):
        raise refused(f"a sliding window of {window} in some layers only", "the same attention in every layer")
    return window if all(windowed) else None


def _feature_layer(layer: object, layers: int) -> int:
    """`hidden_states[0]` is the embeddings: entry i is the output of encoder layer i - 1."""
    if type(layer) is not int or not 0 <= (found := (layer if layer >= 0 else layers + 1 + layer) - 1) < layers:
        raise refused(f"vision_feature_layer {str(layer)[:40]}", f"one layer of the tower's {layers}")
    return found


def _sizes(section: str, given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, int]:
    for name in names:
        value = given[name]
        if type(value) is not int or not 1 <= value < 2**31:
            raise refused(f"{section}.{name} {str(value)[:40]}", "1 or more")
    return {name: given[name] for name in names}
