"""Checkpoints that cannot be exported: how a good one is spoiled, and what the refusal must say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

MATRIX = "language_model.model.layers.1.mlp.up_proj.weight"

Spoil = Callable[[Path], object]


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Changes a JSON file of the checkpoint."""

    def spoil(checkpoint: Path) -> None:
        content = json.loads((checkpoint / name).read_text())
        change(content)
        (checkpoint / name).write_text(json.dumps(content))

    return spoil


def config(path: str, value: object) -> Spoil:
    """Sets a value of config.json: `text_config.num_hidden_layers`."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            content = content[parent]
        content[last] = value

    return edit("config.json", change)


def write(name: str, content: bytes) -> Spoil:
    return lambda checkpoint: (checkpoint / name).write_bytes(content)


def remove(name: str) -> Spoil:
    return lambda checkpoint: (checkpoint / name).unlink()


def folder(name: str) -> Spoil:
    def spoil(checkpoint: Path) -> None:
        (checkpoint / name).unlink()
        (checkpoint / name).mkdir()

    return spoil


def link(name: str, target: str) -> Spoil:
    """To a file that is there and cannot be read, by the superuser either."""

    def spoil(checkpoint: Path) -> None:
        (checkpoint / name).unlink(missing_ok=True)
        (checkpoint / name).symlink_to(target)

    return spoil


def in_tokenizer_config(content: bytes) -> Spoil:
    """A chat template where older checkpoints have it."""

    def spoil(checkpoint: Path) -> None:
        (checkpoint / "chat_template.jinja").unlink()
        (checkpoint / "tokenizer_config.json").write_bytes(content)

    return spoil


def truncate(name: str, size: int) -> Spoil:
    return lambda checkpoint: os.truncate(checkpoint / name, size)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """Changes the stored tensors."""

    def spoil(checkpoint: Path) -> None:
        stored = load_file(checkpoint / "model.safetensors")
        change(stored)
        save_file(stored, checkpoint / "model.safetensors")

    return spoil


def other_pictures(content: dict[str, Any]) -> None:
    content["image_processor"] |= {"size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112}}


ROPE = "text_config.rope_parameters"
SPOILED: dict[str, tuple[Spoil, str]] = {
    "unknown family": (config("model_type", "qwen2_vl"), "model_type 'qwen2_vl'; expected llava or llava_next"),
    "no family": (config("model_type", None), "model_type"),
    "family is a list": (config("model_type", ["llava"]), "model_type"),
    "unsupported text model": (config("text_config.model_type", "gemma"), "text model 'gemma'; expected llama"),
    "unknown text model": (config("text_config.model_type", "nonsense"), "config.json"),
    "unsupported tower": (config("vision_config.model_type", "siglip_vision_model"), "expected clip_vision_model"),
    "unknown tower": (config("vision_config.model_type", "nonsense"), "config.json"),
    "config is cut": (write("config.json", b'{"model_type":'), "config.json cannot be read"),
    "config is a list": (write("config.json", b"[]"), "config.json holds no JSON object"),
    "config is binary": (write("config.json", b"\xff\xfe\x00"), "config.json cannot be read"),
    "config is deep": (write("config.json", b"[" * 100_000), "config.json cannot be read"),
    "no config": (remove("config.json"), "holds no config.json"),
    "a section is text": (config("text_config", "llama"), "config.json cannot be read by transformers"),
    "a number is text": (config("text_config.hidden_size", "64"), "'hidden_size'"),
    "no layers": (config("text_config.num_hidden_layers", 0), "num_hidden_layers 0; expected 1 or more"),
    "heads do not divide": (config("text_config.num_attention_heads", 5), "attention heads"),
    "tower heads do not divide": (config("vision_config.num_attention_heads", 5), "attention heads"),
    "head_dim of nothing": (config("text_config.head_dim", 0), "head_dim 0; expected a positive even number"),
    "head_dim below nothing": (config("text_config.head_dim", -16), "head_dim -16; expected"),
    "head_dim beyond memory": (config("text_config.head_dim", 10**8), "head_dim 100000000; expected a positive even"),
    "head_dim is odd": (config("text_config.head_dim", 15), "config.json"),
    "no kv heads": (config("text_config.num_key_value_heads", 0), "num_key_value_heads 0; expected 1 or more"),
    "kv heads do not divide": (
        config("text_config.num_key_value_heads", 3),
        "4 heads for 3 kv heads; expected a whole",
    ),
    "no heads": (config("text_config.num_attention_heads", 0), "config.json"),
    "fewer heads than none": (config("text_config.num_attention_heads", -4), "num_attention_heads -4; expected 1"),
    "no width": (config("text_config.hidden_size", 0), "text_config.hidden_size 0; expected 1 or more"),
    "a negative width": (config("text_config.hidden_size", -64), "text_config.hidden_size -64; expected 1 or more"),
    "no vocabulary": (config("text_config.vocab_size", 0), "vocab_size 0; expected 1 or more"),
    "no intermediate width": (config("text_config.intermediate_size", -1), "intermediate_size -1; expected 1"),
    "no positions": (config("text_config.max_position_embeddings", 0), "max_position_embeddings 0; expected 1"),
    "too many positions": (config("text_config.max_position_embeddings", 10**9), "expected at most 16777216"),
    "a number of no size": (config("text_config.max_position_embeddings", 10**30), "expected at most 2147483647"),
    "tower of no width": (config("vision_config.hidden_size", 0), "vision_config.hidden_size 0; expected 1 or more"),
    "tower of no layers": (config("vision_config.num_hidden_layers", 0), "num_hidden_layers 0; expected 1 or more"),
    "patches of nothing": (config("vision_config.patch_size", 0), "vision_config.patch_size 0; expected 1 or more"),
    "patches larger than tiles": (config("vision_config.patch_size", 57), "patches of 57 px in tiles of 56 px"),
    "two sides of a patch": (config("vision_config.patch_size", [14, 14]), "patch_size [14, 14]; expected 1 or more"),
    "tiles without a side": (config("vision_config.image_size", []), "vision_config.image_size []; expected 1 or more"),
    "grid of numbers": (config("image_grid_pinpoints", [1, 2]), "image_grid_pinpoints [1, 2]; expected pairs"),
    "grid is a number": (config("image_grid_pinpoints", 56), "image_grid_pinpoints"),
    "grid of texts": (config("image_grid_pinpoints", ["56", "56"]), "image_grid_pinpoints"),
    "grid of one number": (config("image_grid_pinpoints", [[56]]), "image_grid_pinpoints [[56]]; expected pairs"),
    "grid of odd tiles": (config("image_grid_pinpoints", [[57, 56]]), "grid pinpoint (57, 56)"),
    "no grid": (config("image_grid_pinpoints", []), "0 grid pinpoints"),
    "several feature layers": (config("vision_feature_layer", [-2, -3]), "vision_feature_layer [-2, -3]; expected one"),
    "feature layer beyond": (config("vision_feature_layer", 99), "vision_feature_layer 99; expected a layer"),
    "CLS kept": (config("vision_feature_select_strategy", "full"), "vision_feature_select_strategy 'full'"),
    "rope yarn": (config(ROPE, {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}), "rotary scaling 'yarn'"),
    "rope unknown": (config(ROPE, {"rope_type": "nonsense", "rope_theta": 1e4}), "rotary scaling 'nonsense'"),
    "rope without factor": (config(ROPE, {"rope_type": "linear", "rope_theta": 1e4}), "factor"),
    "text activation": (config("text_config.hidden_act", "gelu"), "hidden_act 'gelu'; expected silu"),
    "tower activation": (config("vision_config.hidden_act", "nonsense"), "hidden_act 'nonsense'; expected gelu"),
    "projector activation": (config("projector_hidden_act", "xielu"), "projector_hidden_act 'xielu'; expected gelu"),
    "vocabulary of another size": (config("text_config.vocab_size", 100), "has shape (512, 64); expected (100, 64)"),
    "image sizes differ": (edit("processor_config.json", other_pictures), "112 px; expected 56 px"),
    "no weights": (remove("model.safetensors"), "holds no weights"),
    "weights are cut": (truncate("model.safetensors", 50_000), "model.safetensors has 50000 bytes; expected "),
    "header is cut": (truncate("model.safetensors", 4), "model.safetensors has 4 bytes"),
    "a tensor is missing": (tensors(lambda t: t.pop(MATRIX)), "no tensor text.layers.1.mlp.up_proj.weight"),
    "a tensor's shape": (
        tensors(lambda t: t.update({MATRIX: torch.zeros(3, 3)})),
        "layers.1.mlp.up_proj.weight has shape (3, 3); expected (96, 64)",
    ),
    "a tensor of integers": (
        tensors(lambda t: t.update({MATRIX: torch.zeros(96, 64, dtype=torch.int8)})),
        "no tensor text.layers.1.mlp.up_proj.weight",
    ),
    "no tokenizer": (remove("tokenizer.json"), "holds no tokenizer.json"),
    "an empty tokenizer": (write("tokenizer.json", b"{}"), "the tokenizer cannot be read from "),
    "no tokenizer config": (remove("tokenizer_config.json"), "holds no tokenizer_config.json"),
    "tokenizer is a folder": (folder("tokenizer.json"), "tokenizer.json cannot be read (Is a directory)"),
    "template is not UTF-8": (
        write("chat_template.jinja", b"caf\xe9"),
        "chat_template.jinja cannot be read (byte 3 is",
    ),
    "template is cut": (
        write("chat_template.jinja", b"\n\n{% for message in messages %}"),
        "is not valid at line 3 (Unexpected end of template",
    ),
    "template with an unknown filter": (
        write("chat_template.jinja", b"{{ messages | nonsense }}"),
        "is not valid at line 1 (No filter named 'nonsense'.); expected a jinja2 template",
    ),
    "template is deep": (
        write("chat_template.jinja", b"{{ " + b"(" * 10_000 + b"1" + b")" * 10_000 + b" }}"),
        "is nested too deeply",
    ),
    "template of nested loops": (
        write("chat_template.jinja", b"{% for m in messages %}" * 30 + b"{% endfor %}" * 30),
        "is nested too deeply",
    ),
    "template of many digits": (
        write("chat_template.jinja", b"{{ " + b"9" * 5000 + b" }}"),
        "has a number of too many digits",
    ),
    "template with half a character": (
        in_tokenizer_config(b'{"chat_template": "\\ud800"}'),
        "holds half a character; expected a jinja2 template",
    ),
    "a preprocessor that cannot be read": (link("preprocessor_config.json", "/proc/self/mem"), "cannot be read (Input"),
    "a template that cannot be read": (link("chat_template.jinja", "/proc/self/mem"), "cannot be read (Input/output"),
    "no chat template": (remove("chat_template.jinja"), "holds no chat template"),
    "no preprocessor": (remove("processor_config.json"), "holds no preprocessor_config.json"),
    "a stop token beyond": (write("generation_config.json", b'{"eos_token_id": 99999}'), "eos_token_id is 99999"),
}
