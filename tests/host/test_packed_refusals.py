"""Checkpoints in 4 bits that cannot be exported: what is said of them, in one line, before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hired_edge.errors import CheckpointError
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, read_spec
from hired_export.sources import Sources
from tests.tiny.checkpoints import write_checkpoint
from tests.tiny.commands import Capture, accepted, refused
from tests.tiny.packed import Method, pack_checkpoint

LAYER = "language_model.model.layers.0.mlp.up_proj"
Tensors = dict[str, torch.Tensor]
Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Method], Path]:
    """One layer, stored by each method on demand."""
    root = tmp_path_factory.mktemp("packed")
    made = {}

    def folder(method: Method) -> Path:
        if method not in made:
            text = {"num_hidden_layers": 1}
            made[method] = write_checkpoint(root / method, text_config=text, dtype="float16")
            pack_checkpoint(made[method], method, group=32, symmetric=False)
        return made[method]

    return folder


def said(**fields: Any) -> Spoil:
    """Changes fields of quantization_config; one that is None is left out."""

    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        changed = {**config["quantization_config"], **fields}
        config["quantization_config"] = {key: value for key, value in changed.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))

    return spoil


def scheme(**fields: Any) -> Spoil:
    """Changes fields of compressed-tensors' only group."""

    def spoil(folder: Path) -> None:
        groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]
        groups["group_0"]["weights"].update(fields)
        said(config_groups=groups)(folder)

    return spoil


def unsaid(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))


def part(suffix: str, change: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Spoil:
    """Changes one part of one matrix, or leaves it out."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        name = f"{LAYER}.{suffix}"
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change(tensors.get(name, torch.zeros(1))).contiguous()
        save_file(tensors, folder / "model.safetensors")

    return spoil


SPOILED: dict[str, tuple[Method, Spoil, str]] = {
    "8 bits": ("gptq", said(bits=8), "weights of 8 bits; expected 4"),
    "3 bits": ("gptq", said(bits=3), "weights of 3 bits; expected 4"),
    "bits in words": ("awq", said(bits="four"), "weights of four bits; expected 4"),
    "no groups": ("gptq", said(group_size=-1), "group_size -1; expected a number of inputs"),
    "awq without groups": ("awq", said(group_size=-1), "group_size -1"),
    "a group of 0": ("awq", said(group_size=0), "group_size 0"),
    "another group": ("awq", said(group_size=64), "qweight has shape (96, 8); expected (192, 8), by its scales"),
    "a group that does not divide": ("gptq", said(group_size=48), "expected (18, 64), by its scales and a group of 48"),
    "gemv": ("awq", said(version="gemv"), "format 'gemv' of awq; expected gemm"),
    "gemv_fast": ("awq", said(version="GEMV_FAST"), "format 'gemv_fast' of awq; expected gemm"),
    "llm-awq": ("awq", said(backend="llm-awq"), "backend 'llm-awq'; expected AutoAWQ's gemm format"),
    "marlin": ("gptq", said(checkpoint_format="marlin"), "format 'marlin' of gptq; expected gptq or gptq_v2"),
    "other bits for a layer": ("gptq", said(dynamic={"-:lm_head": {}}), "(dynamic); expected one format for all"),
    "short words": ("gptq", said(pack_dtype="int16"), "pack_dtype 'int16'; expected int32"),
    "another library": (
        "awq",
        said(quant_method="bitsandbytes"),
        "quant_method 'bitsandbytes'; expected awq, gptq, compressed-tensors",
    ),
    "nobody's": ("awq", said(quant_method=None), "quant_method 'nothing'"),
    "nothing said": ("awq", unsaid, "is part of a quantised matrix and config.json has no quantization_config"),
    "another method's config": ("awq", said(quant_method="compressed-tensors"), "of 0 config_groups"),
    "awq's parts as gptq's": ("awq", said(quant_method="gptq", version=None), "qweight has shape (96, 8)"),
    "gptq's parts as awq's": (
        "gptq",
        said(quant_method="awq", checkpoint_format="gemm"),
        "has g_idx, qweight, qzeros, scales; expected",
    ),
    "no zero points": ("gptq", part("qzeros"), "expected qweight, scales, qzeros, by quant_method gptq"),
    "no scales": ("awq", part("scales"), "has qweight, qzeros; expected qweight, scales, qzeros"),
    "a weight as well": ("awq", part("weight", lambda _: torch.zeros(96, 64)), "has weight and"),
    "too few words": ("awq", part("qweight", lambda words: words[:-1]), "qweight has shape (63, 12)"),
    "too few zero points": ("gptq", part("qzeros", lambda words: words[:, 1:]), "qzeros has shape (2, 11)"),
    "scales of one axis": (
        "gptq",
        part("scales", lambda scales: scales[0]),
        "scales has shape (96,); expected groups and outputs",
    ),
    "too few groups named": ("gptq", part("g_idx", lambda groups: groups[:5]), "g_idx has shape (5,); expected (64,)"),
    "8 bits compressed": ("compressed-tensors", scheme(num_bits=8), "weights of 8 bits; expected 4"),
    "floats": ("compressed-tensors", scheme(type="float"), "type 'float' by 'group'; expected 'int' by 'group'"),
    "channels": ("compressed-tensors", scheme(strategy="channel", group_size=None), "type 'int' by 'channel'"),
    "no zero points compressed": ("compressed-tensors", part("weight_zero_point"), "weight_scale, weight_zero_point"),
    "another format": ("compressed-tensors", said(format="int-quantized"), "format 'int-quantized' of 1 config_groups"),
    "a scale for outputs": (
        "compressed-tensors",
        part("weight_scale", lambda scales: scales.T),
        "weight_packed has shape (96, 8)",
    ),
}
READ: dict[str, tuple[Method, Spoil, str]] = {
    "words of 64 bits": ("awq", part("qweight", torch.Tensor.long), "is stored as int64; expected int32"),
    "infinite scales": ("gptq", part("scales", lambda scales: scales / 0), "holds infinity or what is no number"),
    "a group that is not there": (
        "gptq",
        part("g_idx", lambda groups: groups + 1),
        "names groups 1 to 2; expected 0 to 1",
    ),
    "a negative group": ("gptq", part("g_idx", lambda groups: groups - 1), "names groups -1 to 0"),
}


def refusal(spoil: Spoil, folder: Path, copy: Path) -> Checkpoint:
    shutil.copytree(folder, copy)
    spoil(copy)
    return Checkpoint(copy)


@pytest.mark.parametrize("name", SPOILED)
def test_what_a_checkpoint_must_not_say(name: str, good: Callable[[Method], Path], tmp_path: Path) -> None:
    method, spoil, message = SPOILED[name]
    with pytest.raises(CheckpointError) as raised:
        _ = refusal(spoil, good(method), tmp_path / "checkpoint").tensors
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", READ)
def test_what_its_tensors_must_not_hold(name: str, good: Callable[[Method], Path], tmp_path: Path) -> None:
    method, spoil, message = READ[name]
    tensor = refusal(spoil, good(method), tmp_path / "checkpoint").tensors["text.layers.0.mlp.up_proj.weight"]
    with pytest.raises(CheckpointError) as raised:
        list(tensor.chunks())
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bias_that_is_not_added(good: Callable[[Method], Path], tmp_path: Path) -> None:
    """AutoGPTQ once stored zeros for every matrix; anything else belongs to another config.json."""
    zeros = part("bias", lambda _: torch.zeros(96).half())
    checkpoint = refusal(zeros, good("gptq"), tmp_path / "zeros")
    assert Sources(checkpoint, read_spec(checkpoint, AttentionChoice())).language
    checkpoint = refusal(part("bias", lambda _: torch.ones(96).half()), good("gptq"), tmp_path / "ones")
    with pytest.raises(CheckpointError, match=r"up_proj\.bias holds numbers that this text model does not add"):
        Sources(checkpoint, read_spec(checkpoint, AttentionChoice()))


def test_the_command_refuses_in_one_line(good: Callable[[Method], Path], tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(good("gptq"), tmp_path / "checkpoint")
    said(bits=8)(tmp_path / "checkpoint")
    flags = ("--precision=int4", "--visual-tokens=20%", "--max-text-tokens=64", "--max-new-tokens=16")
    line = refused(capsys, "export", tmp_path / "checkpoint", tmp_path / "out", *flags)
    assert line.startswith("config.json says weights of 8 bits; expected 4; use the checkpoint that")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["awq", "compressed-tensors"])
def test_a_plan_is_that_of_the_same_model_without(
    method: Method, good: Callable[[Method], Path], tmp_path: Path, capsys: Capture
) -> None:
    """`quantization_config` says nothing about sizes: what is exported may have any precision."""
    folder = shutil.copytree(good(method), tmp_path / "checkpoint")
    flags = ("--device", "orin-nx-8gb", "--visual-tokens", "20%")
    with_it = accepted(capsys, "plan", folder, *flags)
    unsaid(folder)
    assert accepted(capsys, "plan", folder, *flags) == with_it
