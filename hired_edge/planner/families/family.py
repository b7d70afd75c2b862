"""What a model family has to say to the planner: its tower's sizes and tensors, and how it cuts pictures.

One file a family, named in `FAMILIES`; `docs/adding-a-family.md` walks through it. Values are read strictly, with what
transformers' config class of the family fills in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hired_edge.planner.original import refused
from hired_edge.planner.shapes import TowerShape
from hired_edge.tiling import TilingRules

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """One family.

    Args:
        text: the text model where `text_config` names none.
        tower: what `vision_config` must say, and is taken to say where it says nothing.
        newline: whether the family has an `image_newline`.
        tied: whether the LM head is the embedding table where the config leaves `tie_word_embeddings` out.
        read: config.json, and what reads the picture processor's part of preprocessor_config.json ({} where there is
            none) -> the tower and the geometry.
    """

    text: str
    tower: str
    newline: bool
    tied: bool
    read: Callable[[Config, Callable[[], Config]], tuple[TowerShape, TilingRules]]


def given(section: Config) -> dict[str, Any]:
    """Without what is null, but for three keys where that says something: no window; as many kv heads as heads; heads
    that share the width."""
    kept_null = ("sliding_window", "num_key_value_heads", "head_dim")
    return {key: value for key, value in section.items() if value is not None or key in kept_null}


def section(config: Config, name: str, model_type: str) -> dict[str, Any]:
    """`text_config` or `vision_config`, with its `model_type`.

    Raises:
        CheckpointError: it is no object.
    """
    found = config.get(name) or {}
    if not isinstance(found, Mapping):
        raise refused(f"{name} {type(found).__name__}", "an object")
    return {"model_type": model_type, **given(found)}


MOST = {"num_hidden_layers": 1000}
"""What is gone through one by one."""
MOST_OF_ANY = 2**31 - 1


def sizes(where: str, values: Config, names: tuple[str, ...]) -> dict[str, int]:
    """Those of the names, which must be whole numbers from 1 on, and no larger than any model's.

    Raises:
        CheckpointError: one is not.
    """
    for name in names:
        value = values[name]
        most = MOST.get(name, MOST_OF_ANY)
        if type(value) is not int or value < 1:
            raise refused(f"{where}.{name} {str(value)[:40]}", "1 or more")
        if value > most:
            raise refused(f"{where}.{name} {str(value)[:40]}", f"at most {most}")
    return {name: values[name] for name in names}


def feature_layer(layer: object, layers: int) -> int:
    """Of `vision_feature_layer`: `hidden_states[0]` is the embeddings, so entry i is the output of encoder layer i - 1.

    Raises:
        CheckpointError: not one of the tower's layers.
    """
    if type(layer) is not int or not 0 <= (found := (layer if layer >= 0 else layers + 1 + layer) - 1) < layers:
        raise refused(f"vision_feature_layer {str(layer)[:40]}", f"one layer of the tower's {layers}")
    return found
