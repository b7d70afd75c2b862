"""A vision graph in ONNX Runtime, with the options of this runtime: all tiles at once, or one after the other.

    python -m benchmarks.vision.ort_side GRAPH PIXELS THREADS

It imports no torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.cpu.serving import serve
from hired_runtime.ort import session_options

NAMES = ("features", "allocation", "selection")


class Graph:
    """A loaded graph and its input."""

    def __init__(self, path: str, pixels: str, threads: int) -> None:
        self._session = ort.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
        self._pixels = np.load(pixels)
        self._outputs: list[Any] = []

    def together(self) -> float:
        """Seconds of all tiles as one batch."""
        return self._timed([self._pixels])

    def one_by_one(self) -> float:
        """Seconds of all tiles, each as a batch of one."""
        return self._timed(list(self._pixels[:, None]))

    def _timed(self, batches: list[Any]) -> float:
        begin = time.perf_counter()
        found = [self._session.run(None, {"pixel_values": batch}) for batch in batches]
        self._outputs = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        return time.perf_counter() - begin

    def save(self, path: str) -> None:
        """What the last run gave: features, allocation and selection attention, as far as the graph has them."""
        np.savez(path, **dict(zip(NAMES, self._outputs, strict=False)))


def _open() -> Mapping[str, Callable[..., Any]]:
    path, pixels, threads = sys.argv[1:]
    graph = Graph(path, pixels, int(threads))
    return {
        "together": graph.together,
        "one_by_one": graph.one_by_one,
        "save": graph.save,
        "version": lambda: f"onnxruntime {ort.__version__}",
    }


if __name__ == "__main__":
    serve(_open)
