"""Graphs that are traced once a test run: that takes seconds and depends on a shape alone, so recipes of equal shapes
share a trace, and workers share theirs through a folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from hired_export import graphs
from hired_export.decoder import DecoderShape
from hired_export.vision import VisionShape


class Lock:
    """Held by one process at a time; the others wait."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class Shared:
    """Where the run's workers keep traces; None: each for itself."""

    folder: Path | None = None


def traced_language(shape: DecoderShape, dtype: torch.dtype = torch.float32) -> ir.Model:
    """`language_graph`, once a shape; a sliding window is no part of the standard graph (it comes in the mask)."""
    return _traced(graphs.language_graph, replace(shape, sliding_window=None), dtype).clone()


def traced_vision(shape: VisionShape, dtype: torch.dtype = torch.float32) -> ir.Model:
    """`vision_graph`, once a shape."""
    return _traced(graphs.vision_graph, shape, dtype).clone()


@cache
def _traced(trace: Callable[..., ir.Model], shape: Any, dtype: torch.dtype) -> ir.Model:
    if Shared.folder is None:
        return trace(shape, dtype)
    path = Shared.folder / hashlib.sha256(f"{trace.__name__} {shape} {dtype}".encode()).hexdigest()
    with Lock(path.with_suffix(".lock")):
        if path.exists():
            return _read(path.read_bytes())
        model = trace(shape, dtype)
        stored, partial = _stored(model), path.with_suffix(".partial")
        assert _stored(_read(stored)) == stored, "a trace that is kept is not the one that was made"
        with contextlib.suppress(OSError):  # inside a test that allows no large files
            partial.write_bytes(stored)
            partial.rename(path)
        return model


def _stored(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def _read(content: bytes) -> ir.Model:
    return ir.from_proto(onnx.ModelProto.FromString(content))
