"""An ONNX file's external data: the protobuf that is walked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from hired_edge.onnx_locations import external_locations
from tests.fuzz.mutators import protobuf
from tests.fuzz.surface import ROOT, Feed, Surface
from tests.tiny.manifests import field, onnx_bytes

MOST_BYTES = 2**15


def seeds() -> dict[str, bytes]:
    entry = field(13, field(1, b"location") + field(2, b"a.data"))
    attribute = field(5, field(5, entry) + field(10, entry) + field(22, field(1, entry) + field(2, entry)))
    function = field(25, field(7, attribute) + field(11, field(6, field(1, attribute))))
    return {
        "two": onnx_bytes("a.data", "b.data"),
        "nested": field(7, field(1, attribute) + field(15, field(1, entry))) + function + field(20, field(1, b"")),
        "language": (ROOT / "tests/golden/bundle/language/model.onnx").read_bytes(),
    }


def opened(folder: Path) -> Feed:
    path = folder / "model.onnx"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        external_locations(path)

    return feed


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """What is longer than a graph is read no otherwise, and slower."""
    return protobuf.mutated(data, random, others)[:MOST_BYTES]


SURFACE = Surface("the external data that an ONNX file names", opened, seeds, mutated)
