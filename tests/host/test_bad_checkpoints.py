"""`hired-edge export` on checkpoints and options that it must refuse: one line, status 2, nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hired_edge.errors import CheckpointError
from hired_export import partial as partial_module
from tests.host.bundles import Bundles
from tests.tiny.checkpoints import write_checkpoint
from tests.tiny.commands import Capture, refused

OPTIONS = {"--visual-tokens": "20%", "--max-text-tokens": "64", "--max-new-tokens": "16"}
MATRIX = "language_model.model.layers.1.mlp.up_proj.weight"

Spoil = Callable[[Path], object]


@pytest.fixture
def checkpoint(bundles: Bundles, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoiled."""
    return Path(shutil.copytree(bundles.checkpoint("next-llama"), tmp_path / "checkpoint"))


def refusal(capsys: Capture, checkpoint: Path, out: Path, **options: object) -> str:
    """The line with which the export refuses; it must leave neither OUT nor OUT.partial."""
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else None
    chosen = {**OPTIONS, **{f"--{name.replace('_', '-')}": value for name, value in options.items()}}
    line = refused(capsys, "export", checkpoint, out, *(f"{flag}={value}" for flag, value in chosen.items()))
    assert (sorted(out.parent.iterdir()) if out.parent.is_dir() else None) == before
    return line


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
    "patches of nothing": (config("vision_config.patch_size", 0), "patches of 0 px"),
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
    "an empty tokenizer": (write("tokenizer.json", b"{}"), "tokenizer.json holds no tokenizer"),
    "no tokenizer config": (remove("tokenizer_config.json"), "holds no tokenizer_config.json"),
    "no chat template": (remove("chat_template.jinja"), "holds no chat template"),
    "no preprocessor": (remove("processor_config.json"), "holds no preprocessor_config.json"),
    "a stop token beyond": (write("generation_config.json", b'{"eos_token_id": 99999}'), "eos_token_id is 99999"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_checkpoint(name: str, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    spoil, message = SPOILED[name]
    spoil(checkpoint)
    assert message in refusal(capsys, checkpoint, tmp_path / "out")


def test_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert "nothing is not a folder" in refusal(capsys, tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "file is not a folder" in refusal(capsys, tmp_path / "file", tmp_path / "out")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", shards=2)


def test_a_missing_shard(sharded: Path, tmp_path: Path, capsys: Capture) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    assert "names 'model-00002-of-00002.safetensors', which is no file" in refusal(capsys, sharded, tmp_path / "out")


@pytest.mark.parametrize("shard", ["../evil.safetensors", "/etc/passwd", "..", "", "sub/evil.safetensors"])
def test_an_index_may_not_name_files_elsewhere(shard: str, sharded: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(sharded / "model-00001-of-00002.safetensors", tmp_path / "evil.safetensors")
    name = "model.safetensors.index.json"
    edit(name, lambda index: index["weight_map"].update({MATRIX: shard}))(sharded)
    assert "which is no file of" in refusal(capsys, sharded, tmp_path / "out")


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}])
def test_an_index_without_a_map(weight_map: object, sharded: Path, tmp_path: Path, capsys: Capture) -> None:
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "has no weight_map" in refusal(capsys, sharded, tmp_path / "out")


class Payload:
    """Unpickled without care, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))])
def test_a_malicious_pickle_is_not_executed(
    save: Callable[[object, Path], object], checkpoint: Path, tmp_path: Path, capsys: Capture
) -> None:
    (checkpoint / "model.safetensors").unlink()
    path, proof = checkpoint / "pytorch_model.bin", tmp_path / "executed"
    save({"language_model.model.norm.weight": Payload(proof)}, path)
    assert "cannot be read as plain tensors" in refusal(capsys, checkpoint, tmp_path / "out")
    assert not proof.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert proof.exists(), "the payload works where nobody takes care"


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 half an archive"])
def test_a_bin_that_is_no_state_dict(content: bytes, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(content)
    assert "pytorch_model.bin" in refusal(capsys, checkpoint, tmp_path / "out")
    torch.save([1, 2], checkpoint / "pytorch_model.bin")
    assert "holds a list" in refusal(capsys, checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visual_tokens": "nonsense"}, "'nonsense'"),
        ({"visual_tokens": ""}, "''"),
        ({"visual_tokens": "20%,"}, "''"),
        ({"visual_tokens": "100.1%"}, "'100.1%'"),
        ({"visual_tokens": "-5"}, "'-5'"),
        ({"visual_tokens": "-5%"}, "'-5%'"),
        ({"visual_tokens": "1.5"}, "'1.5'"),
        ({"max_text_tokens": 0}, "text_tokens is 0; expected 1 or more"),
        ({"max_new_tokens": 0}, "new_tokens is 0; expected 1 or more"),
        ({"max_new_tokens": -1}, "new_tokens is -1"),
        ({"max_batch": 0}, "batch is 0"),
        ({"max_images": 0}, "images is 0"),
        ({"max_text_tokens": 4096}, "expected at most 4096, the text model's max_position_embeddings"),
        ({"max_images": 10_000, "visual_tokens": "100%"}, "max_position_embeddings"),
        ({"heads": 99}, "--heads 99; expected sum, or 0 to 3"),
        ({"heads": "mean"}, "--heads 'mean'"),
        ({"heads": "-1"}, "--heads '-1'"),
        ({"selection_layer": 99}, "--selection-layer 99; expected 0 to 4"),
        ({"selection_layer": -1}, "--selection-layer -1"),
        ({"allocation_layer": 5}, "--allocation-layer 5; expected 0 to 4"),
        ({"block_size": 33, "precision": "int4"}, "--block-size 33; expected 32 or 64 or 128"),
    ],
)
def test_options(options: dict[str, object], message: str, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    assert message in refusal(capsys, checkpoint, tmp_path / "out", **options)


def test_an_out_that_exists_is_left_as_it_is(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert "out exists; expected a folder to be made" in refusal(capsys, checkpoint, out)
    assert (out / "mine").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    assert "file exists" in refusal(capsys, checkpoint, tmp_path / "file")
    (tmp_path / "link").symlink_to("nowhere")
    assert "link exists" in refusal(capsys, checkpoint, tmp_path / "link")
    assert ". exists" in refusal(capsys, checkpoint, Path("."))


def test_an_out_that_cannot_be_made(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written (" in refusal(capsys, checkpoint, tmp_path / "file" / "out")
    assert "File name too long" in refusal(capsys, checkpoint, tmp_path / ("o" * 250))
    assert "File name too long" in refusal(capsys, checkpoint, tmp_path / ("o" * 300))


def test_too_little_free_space_as_faked_is_refused_early(
    checkpoint: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**19)
    monkeypatch.setattr(partial_module.shutil, "disk_usage", lambda path: usage)
    assert "0 MiB free; expected about 1 MiB" in refusal(capsys, checkpoint, tmp_path / "out")


def test_an_error_survives_the_way_between_processes() -> None:
    error = CheckpointError("got", expected="this", fix="do so")
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is CheckpointError
    assert (copied.got, copied.expected, copied.fix, str(copied)) == ("got", "this", "do so", str(error))
