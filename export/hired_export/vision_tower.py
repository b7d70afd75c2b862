"""The vision tower of a checkpoint in an original layout: inside it (LLaVA-1.6), or in a folder (`--vision-tower`).

LLaVA-1.5's and ShareGPT4V's checkpoints hold no tower, only its name. Which weights belong to a name is never guessed:
ShareGPT4V's tower has the shape of OpenAI's CLIP and other weights. A tower inside a checkpoint was trained with it, so
another one is refused. What a tower's shape cannot show is whether its weights are the right ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hired_edge.errors import CheckpointError, InputError
from hired_edge.planner.defaults import CLIP, CLIP_L_336
from hired_edge.planner.original import TOWERS, is_original, tower_name
from hired_export.checkpoint import Checkpoint

FLAG = "--vision-tower"
SHAREGPT4V = re.compile(r"ShareGPT4V-(7|13)B_Pretrained_vit-large336-l12")
OPENAI = re.compile(r"clip-vit-(base|large)-patch")
"""OpenAI's names; its towers have heads of 64, `quick_gelu` and layer norms of 1e-5, and their tensors say the rest."""
HEAD_WIDTH = 64
ADAPTERS = ("adapter_config.json", "non_lora_trainables.bin")


def open_checkpoint(root: Path, vision_tower: Path | None = None) -> Checkpoint:
    """A checkpoint with its tower.

    Args:
        root: its folder.
        vision_tower: the folder of a CLIPModel or CLIPVisionModel, where the checkpoint holds no tower.

    Raises:
        CheckpointError: no folder, adapters without the model, or no tower.
        InputError: a tower for a checkpoint that has one.
    """
    checkpoint = Checkpoint(root)
    _refuse_adapters(checkpoint)
    if vision_tower is None and not is_original(checkpoint.config):
        return checkpoint
    held = any(name.startswith("vision.") for name in checkpoint.tensors)
    if vision_tower is None:
        if not held:
            raise _no_tower(checkpoint.config)
        return checkpoint
    if held:
        raise InputError(
            f"{FLAG} for a checkpoint that holds its own tower",
            expected=f"{FLAG} only where the weights have none: theirs were trained together",
            fix=f"leave {FLAG} out",
        )
    if not is_original(checkpoint.config):
        raise InputError(
            f"{FLAG} for a checkpoint in the Hub's layout",
            expected="its own tower beside its other weights",
            fix="download all of its shards, and leave the flag out",
        )
    _refuse_another(checkpoint.config, vision_tower)
    return Checkpoint(root, vision_tower)


def tower_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The tower's `vision_config`: its own config.json's, or what its name and its tensors say.

    Raises:
        CheckpointError: no CLIP vision tower, or one of another shape than its name says.
    """
    name = tower_name(checkpoint.config)
    if checkpoint.tower is not None:
        given = checkpoint.tower.config
        config = given.get("vision_config") if given.get("model_type") == "clip" else given
        known = given.get("model_type") in ("clip", "clip_vision_model")
        if not known or not isinstance(config, Mapping):
            raise CheckpointError(
                f"{checkpoint.tower.root / 'config.json'} says model_type {ascii(given.get('model_type'))[:40]}",
                expected="clip_vision_model, or clip with its vision_config",
                fix=f"pass the folder of the tower that config.json names, {name}",
            )
        found = {**CLIP, "hidden_act": "quick_gelu", **config}
    else:
        found = _shape_of_tensors(checkpoint, name)
    if name.endswith(TOWERS):
        for key, value in CLIP_L_336.items():
            if key != "model_type" and found.get(key) != value:
                raise CheckpointError(
                    f"the vision tower has {key} {ascii(found.get(key))[:40]}",
                    expected=f"{value}, as {name} has it",
                    fix=f"pass the folder of {name} as {FLAG}",
                )
    return found


def _refuse_adapters(checkpoint: Checkpoint) -> None:
    for name in ADAPTERS:
        if (checkpoint.root / name).is_file():
            raise CheckpointError(
                f"{checkpoint.root} holds adapters ({name}), not a model",
                expected="the whole model's weights",
                fix="merge the adapters into the model that they were trained on and save it (PEFT: merge_and_unload)",
            )


def _no_tower(config: Mapping[str, Any]) -> CheckpointError:
    name = str(config["mm_vision_tower"])[:120]
    tuned = SHAREGPT4V.search(name)
    warning = ": its weights are its own, OpenAI's CLIP of the same shape would be wrong" if tuned else ""
    return CheckpointError(
        "the checkpoint holds no vision tower",
        expected=f"the tower that config.json names, {name!a}{warning}",
        fix=f"download that repository too and pass its folder as {FLAG} FOLDER",
    )


def _refuse_another(config: Mapping[str, Any], folder: Path) -> None:
    """A folder that is named like a published tower, and like another one than config.json names."""
    wanted, place = tower_name(config), folder.resolve().as_posix()
    known = {"clip-vit-large-patch14-336", *(f"ShareGPT4V-{n}B_Pretrained_vit-large336-l12" for n in (7, 13))}
    parts = {part for folder_name in place.split("/") for part in folder_name.split("--")}  # as the Hub's cache has it
    others = sorted((known - {wanted}) & parts)
    if wanted in known and others and wanted not in parts:
        raise CheckpointError(
            f"{FLAG} {others[0]} for a checkpoint that was trained with {wanted}",
            expected=f"the folder of {wanted}: towers of one shape have weights of their own",
            fix="download that repository and pass its folder",
        )


def _shape_of_tensors(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    if not OPENAI.search(name) and not name.endswith(TOWERS):
        raise CheckpointError(
            f"config.json says mm_vision_tower {ascii(name)[:60]}",
            expected="one of OpenAI's CLIP towers (clip-vit-...), whose activation and heads are known",
            fix="use a checkpoint of a supported architecture",
        )
    shapes = [
        _shape(checkpoint, f"vision.{tensor}", axes)
        for tensor, axes in (
            ("embeddings.patch_embedding.weight", 4),
            ("embeddings.position_embedding.weight", 2),
            ("encoder.layers.0.mlp.fc1.weight", 2),
        )
    ]
    (width, _, _, patch), (positions, _), (wide, _) = shapes
    numbers = [re.match(r"vision\.encoder\.layers\.(\d{1,6})\.", tensor) for tensor in checkpoint.tensors]
    return {
        "hidden_size": width,
        "intermediate_size": wide,
        "num_hidden_layers": 1 + max(int(number[1]) for number in numbers if number),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "image_size": math.isqrt(max(positions - 1, 0)) * patch,
        "patch_size": patch,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


def _shape(checkpoint: Checkpoint, name: str, axes: int) -> tuple[int, ...]:
    tensor = checkpoint.tensors.get(name)
    if tensor is None or len(tensor.shape) != axes:
        raise CheckpointError(
            f"the checkpoint's vision tower has no tensor {name} of {axes} axes",
            expected="a CLIP tower",
            fix="download all of the checkpoint's shards",
        )
    return tensor.shape
