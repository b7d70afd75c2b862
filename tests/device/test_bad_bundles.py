"""Bundles that the device's commands must refuse: one line, status 2, and nothing in them is changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hired_edge import strict
from hired_edge.manifest import Manifest
from tests.tiny.commands import Capture, refused, refused_in_the_end
from tests.tiny.manifests import forge

BUNDLE = Path(__file__).parents[1] / "golden/bundle"
PROMPT = ("--prompt", "What is it?", "--max-new-tokens", "2")
MANIFEST = "manifest.json"


def change_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(bundle: Path) -> None:
        content = json.loads((bundle / MANIFEST).read_text())
        change(content)
        (bundle / MANIFEST).write_text(json.dumps(content))

    return spoil


def set_value(path: str, value: object) -> Callable[[Path], None]:
    def change(content: Any) -> None:
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
        for parent in parents:
            content = content[parent]
        content[last] = value

    return change_manifest(change)


def forged(path: str, value: object) -> Callable[[Path], None]:
    """An edit that corrected what the manifest derives from its values."""

    def spoil(bundle: Path) -> None:
        set_value(path, value)(bundle)
        forge(bundle, strict.from_json(Manifest, json.loads((bundle / MANIFEST).read_text())))

    return spoil


def flip(name: str, offset: int) -> Callable[[Path], None]:
    """Changes a byte; the size stays."""

    def spoil(bundle: Path) -> None:
        content = bytearray((bundle / name).read_bytes())
        content[offset] ^= 1
        (bundle / name).write_bytes(content)

    return spoil


def cut_by_one(name: str) -> Callable[[Path], None]:
    return lambda bundle: os.truncate(bundle / name, (bundle / name).stat().st_size - 1)


def lead_out(bundle: Path) -> None:
    shutil.move(bundle / "tokenizer.json", bundle.parent / "outside.json")
    (bundle / "tokenizer.json").symlink_to(bundle.parent / "outside.json")


def to_a_file(bundle: Path) -> None:
    shutil.rmtree(bundle)
    bundle.write_text("")


BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "does not exist; expected a bundle's folder"),
    "a file": (to_a_file, "is a file; expected a bundle's folder"),
    "no manifest": (lambda bundle: (bundle / MANIFEST).unlink(), "has no manifest.json"),
    "corrupt manifest": (lambda bundle: (bundle / MANIFEST).write_text('{"format_version": 1,'), "is not JSON"),
    "binary manifest": (lambda bundle: (bundle / MANIFEST).write_bytes(b"\xff\xfe\x00"), "is not text"),
    "another format": (set_value("format_version", 99), "format_version is 99; expected 2"),
    "no format": (change_manifest(lambda content: content.pop("format_version")), "format_version is None"),
    "an unknown key": (set_value("extra", 1), "unknown key 'extra'"),
    "a missing key": (change_manifest(lambda content: content.pop("limits")), "manifest.limits is missing"),
    "a wrong type": (set_value("text.layers", "4"), "manifest.text.layers"),
    "an edited limit": (set_value("limits.max_sequence_length", 4096), "max_sequence_length is 4096"),
    "an edited budget": (set_value("limits.visual_tokens", 600), "expected "),
    "an edited layer choice": (set_value("vision.selection_layer", 3), "manifest.json was edited"),
    "forged layers": (forged("text.layers", 5), "cannot run a graph"),
    "fewer forged layers": (forged("text.layers", 3), "cannot run a graph"),
    "forged heads": (forged("text.kv_heads", 4), "cannot run a graph"),
    "a forged cache type": (forged("text.cache_dtype", "float16"), "cannot run a graph"),
    "a forged width": (forged("text.hidden_size", 128), "expected "),
    "a forged vocabulary": (forged("text.vocab_size", 1024), "expected "),
    "an edited tile": (set_value("vision.tiling.image_size", 56), "expected "),
    "a truncated graph": (cut_by_one("language/model.onnx"), "language/model.onnx has "),
    "truncated weights": (cut_by_one("vision/model.onnx.data"), "vision/model.onnx.data has "),
    "edited weights": (flip("language/model.onnx.data", 5000), "model.onnx.data was changed (sha256 "),
    "an edited graph": (flip("vision/model.onnx", 300), "model.onnx was changed (sha256 "),
    "an edited template": (flip("chat_template.jinja", 3), "chat_template.jinja was changed (sha256 "),
    "edited golden outputs": (flip("golden/language.outputs.safetensors", 900), "was changed (sha256 "),
    "a missing file": (lambda bundle: (bundle / "embedding.safetensors").unlink(), "embedding.safetensors is missing"),
    "an extra file": (lambda bundle: (bundle / "notes.txt").write_text(""), "holds 'notes.txt'"),
    "a link that leads out": (lead_out, "tokenizer.json is a link out of the bundle"),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_a_spoiled_bundle_is_refused_by_run_and_by_verify(
    name: str, bundle: Path, picture: Path, capsys: Capture
) -> None:
    spoil, message = BUNDLES[name]
    spoil(bundle)
    before = sorted(bundle.parent.rglob("*"))
    assert message in refused_in_the_end(capsys, "verify", bundle)
    assert message in refused(capsys, "run", bundle, "--image", picture, *PROMPT)
    assert sorted(bundle.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["missing", "a file", "no manifest", "corrupt manifest", "another format"])
def test_inspect_refuses_what_it_cannot_read(name: str, bundle: Path, capsys: Capture) -> None:
    spoil, message = BUNDLES[name]
    spoil(bundle)
    assert message in refused(capsys, "inspect", bundle)
