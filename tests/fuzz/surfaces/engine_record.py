"""`engine.json`: read, and held against the bundle, the machine and the engine files beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hired_edge import strict
from hired_edge.engine_check import Machine, check_engine_files, read_engines
from hired_edge.engine_record import (
    FORMAT_VERSION,
    RECORD_NAME,
    EngineFile,
    EngineRecord,
    GoldenCheck,
    ShapeRange,
)
from hired_edge.manifest import FileRecord
from tests.fuzz.mutators import json_text
from tests.fuzz.surface import Feed, Surface

MACHINE = Machine("tensorrt", "10.16.2.10", 87)
CONTENT = {"vision.engine": b"vision" * 10, "language.960.engine": b"language" * 10}
FILES = {name: FileRecord(10, f"{i:064x}") for i, name in enumerate(("vision.onnx", "language.onnx", "language.data"))}


def _engine(name: str, sources: tuple[str, ...], length: int | None) -> EngineFile:
    digest = hashlib.sha256(CONTENT[name]).hexdigest()
    hashes = {source: FILES[source].sha256 for source in sources}
    profiles = ({"x": ShapeRange((1, 3), (5, 3), (5, 3)), "y": ShapeRange((), (), ())},)
    piece = "vision" if length is None else "language"
    return EngineFile(piece, name, len(CONTENT[name]), digest, sources[0], hashes, profiles, length)


def seeds() -> dict[str, bytes]:
    engines = (
        _engine("vision.engine", ("vision.onnx",), None),
        _engine("language.960.engine", ("language.onnx", "language.data"), 960),
    )
    checks = (None, GoldenCheck("passed", {"logits": 0.01}, {"logits": 0.05}, ""), GoldenCheck("failed", {}, {}, "no"))
    records = [
        EngineRecord(
            FORMAT_VERSION, "hired-edge 0.1.0", "tensorrt", MACHINE.version, 87, None, "13.2", (), engines, each
        )
        for each in checks
    ]
    return {str(i): strict.dumps(record).encode() for i, record in enumerate(records)}


def opened(folder: Path) -> Feed:
    engines = folder / "engines" / MACHINE.folder
    engines.mkdir(parents=True)
    for name, content in CONTENT.items():
        (engines / name).write_bytes(content)

    def feed(data: bytes) -> None:
        (engines / RECORD_NAME).write_bytes(data)
        record = read_engines(folder, FILES, MACHINE)
        check_engine_files(folder, MACHINE, record.engines)

    return feed


SURFACE = Surface("engine.json", opened, seeds, json_text.of())
