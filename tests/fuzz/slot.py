"""A worker's figures and the input that it is busy with, in memory shared with whoever watches it.

The input outlives the worker: whatever ends it, even a crash in native code, what did it is known.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import astuple, dataclass, fields
from pathlib import Path

MOST_BYTES = 2**20
"""Of an input; what is longer is not fed."""


@dataclass
class Figures:
    """Of a worker so far. Memory is resident, in bytes."""

    begun: int = 0
    """1 from the first input on."""
    inputs: int = 0
    taken: int = 0
    """Those that were not refused."""
    spent_ns: int = 0
    """Of processor time, since the first input."""
    slowest_ns: int = 0
    memory_early: int = 0
    """After a tenth of the inputs; 0 before."""
    memory: int = 0
    peak: int = 0


_HEAD = struct.Struct(f"<{len(fields(Figures)) + 1}Q")


class Slot:
    """Opens the file, which is made by `create`."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes(bytes(_HEAD.size + MOST_BYTES))

    def show(self, figures: Figures, data: bytes) -> None:
        """Before the input is fed."""
        self._shared[_HEAD.size : _HEAD.size + len(data)] = data
        self._shared[: _HEAD.size] = _HEAD.pack(*astuple(figures), len(data))

    @property
    def figures(self) -> Figures:
        return Figures(*_HEAD.unpack(self._shared[: _HEAD.size])[:-1])

    @property
    def data(self) -> bytes:
        """The input."""
        size = _HEAD.unpack(self._shared[: _HEAD.size])[-1]
        return self._shared[_HEAD.size : _HEAD.size + size]
