"""Families stand in registries alone: what they say agrees, and a new one is its own files and a line in each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, LlavaNextConfig

from hired_edge.geometry import KINDS
from hired_edge.planner.config import model_shape
from hired_edge.planner.families import FAMILIES as PLANNED
from hired_edge.planner.text_models import TEXT_MODELS
from hired_edge.processors import READERS
from hired_export import exporter, parity, stand_in
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import export
from hired_export.families import FAMILIES, AttentionChoice, read_spec
from hired_export.families.llava import LlavaNext
from tests.host.bundles import RECIPES, Bundles, options, traced_language, traced_vision
from tests.host.reference import opened, picture
from tests.tiny.families import FAMILIES as TINY


def test_every_family_is_known_everywhere() -> None:
    assert set(FAMILIES) == set(PLANNED) == set(TINY) == {recipe.family for recipe in RECIPES.values()}
    for name, family in FAMILIES.items():
        assert (family.tower, family.newline) == (PLANNED[name].tower, PLANNED[name].newline)
        assert model_shape({"model_type": name}).tiling.kind in KINDS
    assert set(KINDS) == set(READERS)


def test_every_text_model_is_known_everywhere() -> None:
    assert set(TEXT_MODELS) == set(stand_in.TEMPLATES) == {recipe.text for recipe in RECIPES.values()}


class TwinConfig(LlavaNextConfig):
    """transformers' config of a family that nobody knows but this test."""

    model_type = "llava_twin"


class Twin(LlavaNext):
    """Another family, whose modules happen to be LLaVA-NeXT's."""


@pytest.mark.slow
def test_a_new_family_is_a_line_in_two_registries(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported, held against the reference that it names, planned and asked, without another change."""
    made = bundles("next-llama")
    folder = Path(shutil.copytree(made.checkpoint, tmp_path / "checkpoint"))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llava_twin"}))
    AutoConfig.register("llava_twin", TwinConfig, exist_ok=True)
    monkeypatch.setitem(FAMILIES, "llava_twin", Twin())
    monkeypatch.setitem(PLANNED, "llava_twin", PLANNED["llava_next"])
    monkeypatch.setattr(exporter, "language_graph", traced_language)
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)
    manifest = export(folder, tmp_path / "bundle", options("next-llama"), check=parity.check)
    assert manifest.family == "llava_twin"
    shape = model_shape(json.loads((folder / "config.json").read_text()))
    assert shape.tiling == read_spec(Checkpoint(folder), AttentionChoice()).tiling
    asked = ("What is it?", [picture(107, 80)])
    answers = [opened(path)[0].ask(*asked, max_new_tokens=8).tokens for path in (tmp_path / "bundle", made.bundle)]
    assert answers[0] == answers[1]
