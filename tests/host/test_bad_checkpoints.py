"""`hired-edge export` on checkpoints and options that it must refuse: one line, status 2, nothing left behind."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hired_edge.errors import CheckpointError
from hired_export import command, prompt_files
from hired_export import partial as partial_module
from hired_export.arguments import options_from
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, read_spec
from tests.host.bundles import Bundles
from tests.host.spoiled import MATRIX, SPOILED, edit
from tests.tiny.checkpoints import write_checkpoint
from tests.tiny.commands import Capture, refused

OPTIONS = {"--visual-tokens": "20%", "--max-text-tokens": "64", "--max-new-tokens": "16"}


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


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_checkpoint(name: str, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    spoil, message = SPOILED[name]
    spoil(checkpoint)
    assert message in refusal(capsys, checkpoint, tmp_path / "out")


def test_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert "nothing is not a folder" in refusal(capsys, tmp_path / "nothing", tmp_path / "out")
    assert "is not a folder" in refusal(capsys, tmp_path / ("n" * 5000), tmp_path / "out")
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
        ({"heads": "\u0662"}, "--heads '\u0662'; expected sum, or the number"),
        ({"heads": "9" * 10}, "--heads '9999999999'"),
        ({"heads": "007"}, "--heads 7; expected sum, or 0 to 3"),
        ({"selection_layer": 99}, "--selection-layer 99; expected 0 to 4"),
        ({"selection_layer": -1}, "--selection-layer -1"),
        ({"allocation_layer": 5}, "--allocation-layer 5; expected 0 to 4"),
        ({"block_size": 33, "precision": "int4"}, "--block-size 33 with --target cpu; expected 128 or 64 or 32"),
    ],
)
def test_options(options: dict[str, object], message: str, checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    assert message in refusal(capsys, checkpoint, tmp_path / "out", **options)


@pytest.mark.parametrize(("text", "head"), [("00", "0"), ("0", "0"), ("003", "3"), ("sum", "sum")])
def test_a_head_is_named_as_in_the_manifest(text: str, head: str) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert options_from(parser.parse_args(["in", "out", "--heads", text])).attention.heads == head


def test_a_template_may_refuse_messages_and_mark_generations(checkpoint: Path) -> None:
    template = "{{ raise_exception('no') }}{% generation %}{{ messages[7].nonsense.x }}{% endgeneration %}{% break %}"
    (checkpoint / "chat_template.jinja").write_text("{% for m in messages %}" + template + "{% endfor %}")
    opened = Checkpoint(checkpoint)
    spec = read_spec(opened, AttentionChoice())
    assert prompt_files.read(opened, spec.config).files["chat_template.jinja"].endswith(b"{% endfor %}")


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
