"""What an export depends on, as one line: two exports with the same line write the same bytes.

    the versions of hired-edge and of the libraries that make graphs and numbers, and hired-edge's own source
    every option, and what lies in the files and folders that options name
    the checkpoint's folder: its name, the contents of small files, the size and time of change of large ones

Weights are not read: a shard of the same size, changed within the clock's resolution, is taken for the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hired_edge
import hired_export
from hired_edge import __version__

LIBRARIES = ("numpy", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
SMALL = 2**25
"""Bytes up to which a file is read."""
SILENT = ("progress",)
"""Options that change no byte."""


def identity(checkpoint: Path, options: Any) -> str:
    """The sha256 of all that.

    Args:
        checkpoint: its folder.
        options: a dataclass.
    """
    facts = {
        "version": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "source": [_folder(Path(package.__file__ or "").parent, "**/*.py") for package in (hired_edge, hired_export)],
        "options": _facts(options),
        "checkpoint": [checkpoint.resolve().name, _folder(checkpoint, "*")],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _facts(value: Any) -> Any:
    """Of an option: what it says and what it names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.name not in SILENT]
        return {name: _facts(getattr(value, name)) for name in names}
    if isinstance(value, Path):
        found = _folder(value, "**/*") if value.is_dir() else _file(value) if value.is_file() else None
        return [value.resolve().name, found]
    if isinstance(value, (list, tuple)):
        return [_facts(item) for item in value]
    return repr(value)


def _folder(root: Path, pattern: str) -> dict[str, Any]:
    return {path.relative_to(root).as_posix(): _file(path) for path in sorted(root.glob(pattern)) if path.is_file()}


def _file(path: Path) -> str | list[int]:
    status = path.stat()
    if status.st_size <= SMALL:
        with contextlib.suppress(OSError):  # what may not be read, no export reads
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return [status.st_size, status.st_mtime_ns]
