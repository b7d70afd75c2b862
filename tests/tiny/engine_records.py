"""A record of two engines that are arbitrary bytes, and the folder that it describes. Nothing reads them as engines."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from hired_edge import strict
from hired_edge.bundle import read_manifest
from hired_edge.engine_check import Machine
from hired_edge.engine_record import (
    FORMAT_VERSION,
    RECORD_NAME,
    EngineFile,
    EngineRecord,
    GoldenCheck,
    ShapeRange,
)
from hired_edge.manifest import FileRecord

MACHINE = Machine("tensorrt", "10.16.2.10", 87)
GRAPH, DATA = "language/model.960.onnx", "language/model.onnx.data"
FILES = {
    name: FileRecord(100 + i, f"{i:064x}") for i, name in enumerate(("manifest", "vision/model.onnx", GRAPH, DATA))
}
CONTENT = {"vision.engine": b"vision" * 100, "language.960.engine": b"language" * 100}


def engine(name: str, graph: str, sources: tuple[str, ...], length: int | None) -> EngineFile:
    return EngineFile(
        piece="vision" if length is None else "language",
        file=name,
        bytes=len(CONTENT[name]),
        sha256=hashlib.sha256(CONTENT[name]).hexdigest(),
        graph=graph,
        sources={source: FILES[source].sha256 for source in sources},
        profiles=({"x": ShapeRange((1, 3), (5, 3), (5, 3))},),
        max_sequence_length=length,
    )


def record() -> EngineRecord:
    return EngineRecord(
        format_version=FORMAT_VERSION,
        producer="hired-edge 0.1.0",
        module="tensorrt",
        version=MACHINE.version,
        sm=87,
        device="Orin",
        driver="13.2",
        flags=("-TF32",),
        engines=(
            engine("vision.engine", "vision/model.onnx", ("vision/model.onnx",), None),
            engine("language.960.engine", GRAPH, (GRAPH, DATA), 960),
        ),
        check=GoldenCheck("passed", {"logits": 0.01}, {"logits": 0.05}, ""),
    )


def write(bundle: Path, made: EngineRecord | None = None) -> Path:
    folder = bundle / "engines" / MACHINE.folder
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    (folder / RECORD_NAME).write_text(strict.dumps(made or record()))
    return folder


def write_for(bundle: Path) -> Path:
    """As `write`, in place of what was written before, with the graphs of a real bundle as sources."""
    files, made = read_manifest(bundle).files, record()
    names = {"vision.engine": ("vision/model.onnx",), "language.960.engine": ("language/model.onnx",)}
    engines = tuple(
        replace(each, graph=names[each.file][0], sources={name: files[name].sha256 for name in names[each.file]})
        for each in made.engines
    )
    shutil.rmtree(bundle / "engines", ignore_errors=True)
    return write(bundle, replace(made, engines=engines))
