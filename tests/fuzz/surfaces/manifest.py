"""`manifest.json`: read, held against a folder, planned for and printed."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hired_edge import strict
from hired_edge.bundle import Bundle, read_manifest
from hired_edge.errors import BundleError
from hired_edge.limits import resolve_opening
from hired_edge.manifest import MANIFEST_NAME, Manifest, parse_manifest
from hired_edge.plan import memory_plan
from hired_runtime.commands.inspect import describe
from tests.fuzz.mutators import json_text
from tests.fuzz.surface import ROOT, Feed, Surface
from tests.tiny.manifests import forge, write_bundle


def seeds() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder))
        found = {"next-7b": (Path(folder) / MANIFEST_NAME).read_bytes()}
    bundles = ("demo/bundle", "tests/golden/bundle", "tests/golden/bundle-int4")
    return found | {name.replace("/", "-"): (ROOT / name / MANIFEST_NAME).read_bytes() for name in bundles}


def opened(folder: Path) -> Feed:
    root = folder / "bundle"
    write_bundle(root)

    def feed(data: bytes) -> None:
        (root / MANIFEST_NAME).write_bytes(data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            read_manifest(root)
            raise AssertionError("a manifest that is not UTF-8 was read") from None
        forge(root, _parsed(text))
        manifest = Bundle.open(root, verify=False).manifest
        describe(manifest)
        memory_plan(manifest, resolve_opening(manifest.limits, manifest.vision.tiling, batch=1, images=1))

    return feed


def _parsed(text: str) -> Manifest:
    """What follows from other values is corrected, as whoever edits a manifest on purpose would."""
    try:
        return parse_manifest(text)
    except BundleError as error:
        if not error.got.startswith("manifest.memory"):
            raise
        manifest = strict.from_json(Manifest, strict.loads(text))
        return replace(manifest, memory=memory_plan(manifest)).validate()


SURFACE = Surface("manifest.json", opened, seeds, json_text.of())
