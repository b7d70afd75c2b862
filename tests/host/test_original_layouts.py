"""Checkpoints in the original layouts: the same bundle as from the Hub's layout of the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.errors import CheckpointError
from hired_edge.manifest import Manifest
from hired_edge.planner.config import model_shape
from hired_edge.planner.original import hub_layout
from hired_export import exporter, parity, prompt_files
from hired_export.exporter import ExportOptions, export
from hired_export.families import AttentionChoice, read_spec
from hired_export.picture_rules import read_preprocessing
from hired_export.sources import Sources
from hired_export.vision_tower import open_checkpoint, tower_config
from hired_runtime.prompt import PromptTemplate, question
from tests.host.bundles import traced_language, traced_vision
from tests.host.committed import files
from tests.host.original_layouts import LAYOUTS, Originals
from tests.tiny.original import write_sentencepiece

MEAN_COLOUR = (122, 116, 104)  # int(255 * mean) of OpenAI's processor, as in llava/conversation.py


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_model_under_other_names(name: str, originals: Originals) -> None:
    made = originals(name)
    hub, original = open_checkpoint(made.hub), open_checkpoint(made.original, made.tower)
    ours, theirs = read_spec(original, AttentionChoice()), read_spec(hub, AttentionChoice())
    for field in ("family", "decoder", "vision", "tiling", "tied", "text_type", "vision_layers"):
        assert getattr(ours, field) == getattr(theirs, field), field
    rules, plain = read_preprocessing(original, ours.tiling), read_preprocessing(hub, ours.tiling)
    assert rules.pad_colour == (MEAN_COLOUR if made.tower else None)
    assert (rules.image_mean, rules.image_size, rules.shortest_edge) == (
        plain.image_mean,
        plain.image_size,
        plain.shortest_edge,
    )
    found, expected = Sources(original, ours), Sources(hub, theirs)
    for part in ("language", "vision"):
        tensors = getattr(expected, part)
        assert set(getattr(found, part)) == set(tensors)
        for weight, tensor in tensors.items():
            assert np.array_equal(getattr(found, part)[weight].stored(), tensor.stored()), weight
    assert (found.newline is None) == (expected.newline is None)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_planner_reads_it_alike(name: str, originals: Originals) -> None:
    made = originals(name)
    original = open_checkpoint(made.original, made.tower)
    planned = model_shape(hub_layout(original.config, tower_config(original)))
    assert planned == model_shape(json.loads((made.hub / "config.json").read_text()))


def exported(checkpoint: Path, out: Path, tower: Path | None, **changes: Any) -> Manifest:
    sizes = {"visual_tokens": ("100%",), "max_text_tokens": 256, "max_new_tokens": 16, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "language_graph", traced_language)
        patch.setattr(exporter, "vision_graph", traced_vision)
        options = ExportOptions(**{**sizes, "vision_tower": tower, **changes})
        return export(checkpoint, out, options, check=parity.check)


BOTH = ["llava-v1.5-7b", "llava-v1.6-mistral-7b"]
REST = [pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS if name not in BOTH]


@pytest.mark.parametrize("name", BOTH + REST)
def test_the_same_bundle(name: str, originals: Originals, tmp_path: Path) -> None:
    """Graphs, weights, embeddings and golden outputs to the byte; the parity check compares with transformers."""
    made = originals(name)
    manifest = exported(made.original, tmp_path / "original", made.tower)
    theirs = exported(made.hub, tmp_path / "hub", None)
    own = ("manifest.json", "chat_template.jinja", "preprocessor_config.json")
    ours, expected = files(tmp_path / "original"), files(tmp_path / "hub")
    assert set(ours) | set(own) == set(expected) | set(own)
    for file in set(ours) - set(own):
        assert ours[file].read_bytes() == expected[file].read_bytes(), file
    assert manifest.parity == theirs.parity
    assert Bundle.open(tmp_path / "original").manifest.vision.preprocess == manifest.vision.preprocess
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    assert hired_runtime.open(tmp_path / "original").ask("What is shown?", [picture], max_new_tokens=3).tokens


def test_a_bin_with_a_tower_in_pieces(originals: Originals) -> None:
    """A CLIPVisionModel's folder does as well as a CLIPModel's: the tower's config.json says which."""
    made = originals("ShareGPT4V-7B")
    assert made.tower is not None
    assert (made.tower / "pytorch_model.bin").is_file()
    whole = open_checkpoint(made.original, made.tower)
    given = json.loads((made.tower / "config.json").read_text())
    assert tower_config(whole)["hidden_size"] == 64
    alone = Path(shutil.copytree(made.tower, made.tower.with_name("alone")))
    (alone / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", **given["vision_config"]}))
    assert tower_config(open_checkpoint(made.original, alone)) == {
        "model_type": "clip_vision_model",
        **tower_config(whole),
    }
    with pytest.raises(CheckpointError, match="says model_type"):
        tower_config(open_checkpoint(made.original, made.hub))


def test_a_tokenizer_model_serves_as_tokenizer(originals: Originals, tmp_path: Path) -> None:
    """Original repositories have no tokenizer.json; the ids are those of the one that it is made from."""
    made = originals("llava-v1.5-7b")
    folder = Path(shutil.copytree(made.original, tmp_path / "llava-v1.5-7b"))
    prompts = []
    for name in ("json", "model"):
        opened = open_checkpoint(folder, made.tower)
        prompt = prompt_files.read(opened, read_spec(opened, AttentionChoice()).config)
        assert (prompt.image_token, prompt.stop_token_ids) == ("<image>", (2,))
        (tmp_path / name).mkdir()
        prompt_files.write(prompt, tmp_path / name)
        prompts.append(PromptTemplate.open(tmp_path / name, image_token="<image>").render(question("Is it red?"), 1))
        if name == "json":
            write_sentencepiece(folder)
    assert prompts[0].ids.tolist() == prompts[1].ids.tolist()
    assert prompts[0].splices == prompts[1].splices
    (folder / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model holds no SentencePiece model"):
        prompt_files.read(open_checkpoint(folder, made.tower), read_spec(opened, AttentionChoice()).config)
