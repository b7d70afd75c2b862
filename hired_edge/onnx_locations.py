"""Which external-data files an ONNX file names, read without the onnx package.

ONNX Runtime opens the `location` of every external tensor, so a bundle is only as closed as these names. This walks
the protobuf wire format down to them and skips everything else, weights included: the file is mapped, never read
whole. It knows nothing of operators or shapes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from hired_edge.errors import BundleError
from hired_edge.strict import MEND

# Message -> field number -> message, for the fields of onnx.proto that lead to a tensor.
_FIELDS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KEY, _VALUE = 1, 2


def external_locations(path: Path) -> set[str]:
    """The `location` of every external tensor in an ONNX file: initialisers, attributes, sub-graphs and functions.

    Raises:
        BundleError: not a protobuf of an ONNX model, or unreadable.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return _locations(buffer)
    except (OSError, ValueError) as error:  # ValueError: an empty file, bad UTF-8, or one of ours below
        raise BundleError(f"{path.name} cannot be read as ONNX ({error})", expected="an ONNX model", fix=MEND) from None


def _locations(buffer: mmap.mmap) -> set[str]:
    found: set[str] = set()
    pending = [("Model", 0, len(buffer))]  # a stack of our own: nesting in the file cannot exhaust Python's
    while pending:
        message, start, end = pending.pop()
        if message == "Entry":
            entry = {number: (left, right) for number, left, right in _fields(buffer, start, end)}
            if _text(buffer, entry.get(_KEY)) == "location":
                found.add(_text(buffer, entry.get(_VALUE)))
            continue
        inner = _FIELDS[message]
        pending += [
            (inner[number], left, right) for number, left, right in _fields(buffer, start, end) if number in inner
        ]
    return found


def _fields(buffer: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields between two offsets, as (field number, start, end)."""
    while position < end:
        tag, position = _varint(buffer, position, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 2**29:  # where parsers disagree on what such a tag means
            raise ValueError(f"field number {number} at byte {position}")
        if kind == _VARINT:
            _, position = _varint(buffer, position, end)
        elif kind == _BYTES:
            length, position = _varint(buffer, position, end)
            if length > end - position:
                raise ValueError(f"a field at byte {position} ends outside its message")
            yield number, position, position + length
            position += length
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:  # groups: never written by proto3, nor by ONNX
            raise ValueError(f"wire type {kind} at byte {position}")
    if position != end:
        raise ValueError(f"a message ends at byte {position} instead of {end}")


def _varint(buffer: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a broken number at byte {position}")


def _text(buffer: mmap.mmap, span: tuple[int, int] | None) -> str:
    return "" if span is None else buffer[span[0] : span[1]].decode("utf-8")
