"""What lmms-eval loads of the adapter, with a stand-in for the little of lmms-eval that it uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import hired_runtime
from hired_edge.errors import InputError
from hired_runtime.lmms_eval import plugin

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
TOKENS = 4
PICTURE = Image.effect_noise((130, 97), 60).convert("RGB")


class Base:
    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    def clean(self) -> None:
        pass


class Bar:
    def __init__(self, **options: Any) -> None:
        self.update = list[int]().append

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def model_class(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    parts = {
        "lmms_eval.api.model": {"lmms": Base},
        "lmms_eval.models.registry_v2": {"ModelManifest": SimpleNamespace},
        "loguru": {"logger": SimpleNamespace(warning=lambda message: None)},
        "tqdm": {"tqdm": Bar},
    }
    for name, content in parts.items():
        stand_in = ModuleType(name)
        vars(stand_in).update(content)
        monkeypatch.setitem(sys.modules, name, stand_in)
    plugin._model_class.cache_clear()
    yield plugin.HiredEdge
    plugin._model_class.cache_clear()


def test_the_manifest_names_a_class_that_the_module_has(model_class: type) -> None:
    manifest = plugin.manifest()
    path, name = manifest.simple_class_path.rsplit(".", 1)
    assert manifest.model_id == "hired_edge"
    assert getattr(sys.modules[path], name) is model_class
    assert issubclass(model_class, Base)


def test_no_other_name_is_made_up() -> None:
    with pytest.raises(AttributeError, match="Other"):
        _ = plugin.Other


def test_instances_become_questions(model_class: type) -> None:
    model = model_class(str(BUNDLE), batch_size=2, visual_tokens="20%")
    model.task_dict = {"pope": {"test": [{"image": PICTURE}, {"image": None}]}}

    def doc_to_visual(doc: dict[str, Any]) -> list[Any] | None:
        return [doc["image"]] if doc["image"] else None

    kwargs = {"until": ["\n\n"], "max_new_tokens": TOKENS, "temperature": 0}
    requests = [SimpleNamespace(args=("Why?", kwargs, doc_to_visual, at, "pope", "test")) for at in range(2)]
    texts = model.generate_until(requests)
    with_picture = hired_runtime.open(BUNDLE, visual_tokens="20%").ask("Why?", [PICTURE], max_new_tokens=TOKENS)
    assert texts[0] == with_picture.text
    assert isinstance(texts[1], str)
    model.clean()


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until_multi_round", "generate_visual_cot"])
def test_tasks_of_other_kinds_are_refused_by_name(kind: str, model_class: type) -> None:
    model = model_class(str(BUNDLE), visual_tokens="20%")
    with pytest.raises(InputError, match=r"seedbench: a task that asks for .*generate_until"):
        getattr(model, kind)([SimpleNamespace(task_name="seedbench")])
    model.clean()


@pytest.mark.parametrize("command", [{"device": "cuda:0"}, {"max_batch_size": 8}])
def test_what_the_command_offers_and_a_bundle_cannot_do(command: dict[str, Any], model_class: type) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(command))}"):
        model_class(str(BUNDLE), **command)


def test_several_processes_are_refused(model_class: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes"):
        model_class(str(BUNDLE))
