"""config.json -> `ModelShape`, with what transformers' config classes fill in where a file leaves keys out.

Two layouts are read: the Hub's (`text_config` and `vision_config`, of transformers 4 and 5), and LLaVA's original one
(`original.py`; the decoder's keys at the top, the tower by name). What a family has of its own is in `families`, what a
text model has in `text_models`. What is not known here: whether an export supports the activation or the rotary scaling
(the exporter refuses those), since no byte depends on them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hired_edge.errors import CheckpointError, InputError
from hired_edge.planner.families import FAMILIES, expected
from hired_edge.planner.families.family import section, sizes
from hired_edge.planner.original import hub_layout, refused
from hired_edge.planner.published import PUBLISHED
from hired_edge.planner.shapes import ModelShape, TextShape
from hired_edge.planner.text_models import SEVEN_B, TEXT_MODELS, Text
from hired_edge.processors import FILES, unwrapped

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
    return _object(path)


def read_processor(where: str) -> Mapping[str, Any]:
    """The picture processor's part of a checkpoint's preprocessor_config.json; empty where there is none.

    Raises:
        CheckpointError: it cannot be read.
    """
    found = [path for path in (Path(where) / name for name in FILES) if os.path.isfile(path)]
    return unwrapped(_object(found[0])) if found else {}


def _object(path: Path) -> dict[str, Any]:
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


def read_model(where: str) -> ModelShape:
    """The sizes of a checkpoint's folder, a config.json or a published model.

    Raises:
        InputError, CheckpointError: as `read_config` and `model_shape`.
    """
    return model_shape(read_config(where), lambda: read_processor(where))


def model_shape(config: Mapping[str, Any], processor: Callable[[], Mapping[str, Any]] = dict) -> ModelShape:
    """The sizes that a config gives.

    Args:
        config: config.json.
        processor: reads what the picture processor's file says, for families whose tiles it counts (InternVL); by
            default nothing, which means what its class assumes.

    Raises:
        CheckpointError: a family, text model or tower that is not supported, or a size that is none.
    """
    config = hub_layout(config)
    name = str(config.get("model_type"))
    family = FAMILIES.get(name)
    if family is None:
        raise refused(f"model_type {name[:40]!r}", expected(name))
    text, tower = section(config, "text_config", family.text), section(config, "vision_config", family.tower)
    if tower["model_type"] != family.tower:
        raise refused(f"vision tower {str(tower['model_type'])[:40]!r}", family.tower)
    shape, tiling = family.read(config, processor)
    at_the_top = config.get("tie_word_embeddings")
    tied = family.tied if at_the_top is None else bool(at_the_top)
    text_shape = _text(text, tied or bool(text.get("tie_word_embeddings", False)))
    return ModelShape(family=name, text=text_shape, tower=shape, tiling=tiling, newline=family.newline)


def _text(given: Mapping[str, Any], tied: bool) -> TextShape:
    facts = TEXT_MODELS.get(str(given["model_type"]))
    if facts is None:
        raise refused(f"text model {str(given['model_type'])[:40]!r}", " or ".join(TEXT_MODELS))
    text = {**facts.defaults, **given}
    if text.get("num_key_value_heads") is None:
        text["num_key_value_heads"] = text["num_attention_heads"]
    names = (*SEVEN_B, "intermediate_size", "num_key_value_heads", "max_position_embeddings")
    found = sizes("text_config", text, names)
    heads, kv_heads = found["num_attention_heads"], found["num_key_value_heads"]
    if heads % kv_heads:
        raise refused(f"{heads} heads for {kv_heads} kv heads", "a whole number of heads per kv head")
    if text.get("head_dim") is None:
        text["head_dim"] = found["hidden_size"] // heads
    head_dim = sizes("text_config", text, ("head_dim",))["head_dim"]

    def has(rule: bool | str) -> bool:
        return bool(text[rule]) if isinstance(rule, str) else rule

    return TextShape(
        model_type=str(given["model_type"]),
        layers=found["num_hidden_layers"],
        hidden_size=found["hidden_size"],
        intermediate_size=found["intermediate_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=found["vocab_size"],
        positions=found["max_position_embeddings"],
        sliding_window=_window(text, facts, found["num_hidden_layers"]),
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
    window = sizes("text_config", text, ("sliding_window",))["sliding_window"]
    kinds = text.get("layer_types")
    first = text.get("max_window_layers", 0)  # of qwen2: the layers before it see everything
    if type(first) is not int or not isinstance(kinds, (list, type(None))):
        got = f"max_window_layers {str(first)[:40]} and layer_types {str(kinds)[:40]}"
        raise refused(got, "a whole number, and a list where there is one")
    windowed = [kind == "sliding_attention" for kind in kinds] if kinds else [i >= first for i in range(layers)]
    if any(windowed) and not all(windowed):
        raise refused(f"a sliding window of {window} in some layers only", "the same attention in every layer")
    return window if all(windowed) else None
