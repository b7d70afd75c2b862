"""Faked engines in a bundle, with a record that is real: what `hired-edge build` would write on the faked GPU."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hired_edge import strict
from hired_edge.bundle import Bundle
from hired_edge.engine_check import Machine
from hired_edge.engine_record import FORMAT_VERSION, RECORD_NAME, EngineFile, EngineRecord, ShapeRange
from hired_edge.manifest import Graph, Manifest
from hired_runtime.cache import CacheRules
from hired_runtime.trt.profiles import language_profiles, longest_prompt, vision_profiles
from tests.tiny.faked_gpu import SM, VERSION, engine_content

MACHINE = Machine("tensorrt", VERSION, SM)


def build(folder: Path, *, batch: int | None = None, machine: Machine = MACHINE, one_profile: bool = False) -> Path:
    """Writes engines of every graph for all that the bundle was exported for; returns their folder."""
    manifest = Bundle.open(folder).manifest
    limits, text = manifest.limits, manifest.text
    target = folder / "engines" / machine.folder
    target.mkdir(parents=True)
    files = [_vision(folder, target, manifest)]
    for graph in manifest.language_graphs:
        slots = graph.max_sequence_length or limits.max_sequence_length
        prompt = longest_prompt(limits, slots)
        profiles = language_profiles(
            text, graph.inputs, batch=batch or limits.batch, prompt=prompt, max_sequence_length=slots
        )
        names = CacheRules(text, slots).names
        aliases = dict(zip(names.present, names.past, strict=True)) if text.cache == "in_place" else {}
        used = profiles[-1:] if one_profile else profiles
        files.append(_write(folder, target / f"language.{slots}.engine", manifest, graph, used, aliases, slots))
    record = EngineRecord(
        format_version=FORMAT_VERSION,
        producer="hired-edge 0.1.0",
        module=machine.module,  # pyright: ignore[reportArgumentType]
        version=machine.version,
        sm=machine.sm,
        device=None,
        driver=None,
        flags=(),
        engines=tuple(files),
        check=None,
    )
    (target / RECORD_NAME).write_text(strict.dumps(record))
    return target


def _vision(folder: Path, target: Path, manifest: Manifest) -> EngineFile:
    profiles = vision_profiles(manifest.vision.tiling.image_size, manifest.limits.tiles)
    return _write(folder, target / "vision.engine", manifest, manifest.vision_graph, profiles, {}, None)


def _write(
    folder: Path,
    path: Path,
    manifest: Manifest,
    graph: Graph,
    profiles: tuple[dict[str, ShapeRange], ...],
    aliases: dict[str, str],
    slots: int | None,
) -> EngineFile:
    plain = [{name: {"min": each.min, "max": each.max} for name, each in profile.items()} for profile in profiles]
    content = engine_content(folder.resolve() / graph.file, plain, aliases)
    path.write_bytes(content)
    return EngineFile(
        piece="vision" if slots is None else "language",
        file=path.name,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        graph=graph.file,
        sources={name: manifest.files[name].sha256 for name in (graph.file, *graph.data)},
        profiles=profiles,
        max_sequence_length=slots,
    )
