"""A safetensors file: its header, and every tensor both mapped and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hired_edge.tensorfile import TensorFile, write_tensors
from tests.fuzz.mutators import safetensors
from tests.fuzz.surface import Feed, Surface


def seeds() -> dict[str, bytes]:
    half = np.arange(6, dtype=np.float16).reshape(2, 3)
    made = {
        "few": {"a": half, "b.weight": np.ones((3, 2), np.float32), "c": np.zeros((), np.int64)},
        "empty": {"none": np.zeros((0, 4), np.uint8), "flags": np.array([True, False])},
        "nothing": {},
    }
    return {name: _file(tensors) for name, tensors in made.items()}


def _file(tensors: dict[str, np.ndarray]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder) / "x", tensors)
        return (Path(folder) / "x").read_bytes()


def opened(folder: Path) -> Feed:
    path = folder / "model.safetensors"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        file = TensorFile(path)
        for name in file.names:
            mapped, copy = file.mapped(name), file.read(name)
            assert mapped.shape == copy.shape == file.info(name).shape
            assert mapped.tobytes() == copy.tobytes()
            if copy.ndim and copy.shape[0]:
                file.read(name, copy.shape[0] - 1, copy.shape[0])

    return feed


SURFACE = Surface("a safetensors file", opened, seeds, safetensors.mutated)
