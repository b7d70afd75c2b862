"""`python -m benchmarks.checkpoint`: what it writes is a checkpoint, the same each time, of the size that was asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForImageTextToText

from benchmarks import checkpoint
from benchmarks.shapes import TINY
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, read_spec
from hired_export.sources import Sources
from tests.host.committed import files

Capture = pytest.CaptureFixture[str]
POOL = 4099
"""Shorter than the tiny model's matrices, as the real one is than a real one's."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "POOL", POOL)
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 300_000)


def written(folder: Path, *options: str) -> Path:
    config = folder / "tiny.json"
    config.write_text(json.dumps(TINY))
    out = folder / f"out{len(list(folder.iterdir()))}"
    assert checkpoint.main([str(config), str(out), *options]) == 0
    return out


def test_the_exporter_and_transformers_read_it(tmp_path: Path, capsys: Capture) -> None:
    folder = written(tmp_path, "--layers", "2")
    assert f"{folder}: 0.00 GB in " in capsys.readouterr().out
    opened = Checkpoint(folder)
    sources = Sources(opened, read_spec(opened, AttentionChoice()))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    ours, theirs = sources.language, dict(model.named_parameters())
    assert sum("q_proj" in name for name in ours) == 2
    for name in ("layers.1.mlp.down_proj.weight", "lm_head.weight", "layers.0.input_layernorm.weight"):
        (stored,) = (value for key, value in theirs.items() if key.endswith(name) and "vision" not in key)
        np.testing.assert_array_equal(ours[name].rows(0, 8), stored[:8].detach().float().numpy())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    assert index["metadata"]["total_size"] == sum(2 * np.prod(t.shape) for t in opened.tensors.values())
    assert {path.name for path in folder.glob("*.safetensors")} == shards


def test_weights_keep_a_layer_s_size_and_rows_differ(tmp_path: Path) -> None:
    tensors = Checkpoint(written(tmp_path)).tensors
    rows = tensors["text.layers.0.mlp.up_proj.weight"].stored()
    assert rows.size > POOL
    assert float(rows.astype(np.float32).std()) == pytest.approx(rows.shape[1] ** -0.5, rel=0.05)
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert not np.array_equal(rows, tensors["text.layers.1.mlp.up_proj.weight"].stored())
    assert (tensors["text.norm.weight"].stored() == 1).all()


def test_a_seed_is_a_checkpoint(tmp_path: Path) -> None:
    one, again, other = (written(tmp_path, "--seed", seed) for seed in ("3", "3", "4"))
    assert list(files(one)) == list(files(again))
    for name, path in files(one).items():
        assert path.read_bytes() == files(again)[name].read_bytes()
        assert name.endswith("safetensors") == (path.read_bytes() != files(other)[name].read_bytes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "0"), "--layers 0; expected 1 or more"),
        (("--seed", "-1"), "--seed -1"),
        (("--tokenizer",), "no module named mistral_common; expected mistral-common"),
    ],
)
def test_refusals_leave_nothing(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mistral_common", None)
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(TINY))
    assert checkpoint.main([str(config), str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.json"]
