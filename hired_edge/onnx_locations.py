"""Which external-data files an ONNX file names, read without the onnx package.

ONNX Runtime opens the `location` of every external tensor, so a bundle is only as closed as these names. This walks
the protobuf wire format down to them and skips everything else, weights included: the file is mapped, never read
whole, and nothing is kept but where the walk is. It knows nothing of operators or shapes.
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
_DEEPEST = 100
"""Messages in messages; protobuf's own parsers read no more."""
_MOST_FIELDS = 2**19
"""Of a file; the language graph of a 7B model has some ten thousand, and its weights are no fields of their own."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KEY, _VALUE = 1, 2


def external_locations(path: Path) -> set[str]:
    """The `location` of every external tensor in an ONNX file: initialisers, attributes, sub-graphs and functions.

    Raises:
        BundleError: not a protobuf of an ONNX model, or unreadable.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return _Walk(buffer).locations()
    except (OSError, ValueError) as error:  # ValueError: an empty file, bad UTF-8, or one of ours below
        raise BundleError(f"{path.name} cannot be read as ONNX ({error})", expected="an ONNX model", fix=MEND) from None


class _Walk:
    """Through one file, of `_MOST_FIELDS` at most."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer, self._left = buffer, _MOST_FIELDS

    def locations(self) -> set[str]:
        found: set[str] = set()
        walks = [("Model", self._fields(0, len(self._buffer)))]  # of a message, and of those that it lies in
        while walks:
            message, fields = walks[-1]
            field = next(fields, None)
            if field is None:
                walks.pop()
                continue
            number, start, end = field
            inner = _FIELDS[message].get(number)
            if inner == "Entry":
                found |= self._location(start, end)
            elif inner is not None:
                if len(walks) == _DEEPEST:
                    raise ValueError(f"more than {_DEEPEST} messages in messages at byte {start}")
                walks.append((inner, self._fields(start, end)))
        return found

    def _location(self, start: int, end: int) -> set[str]:
        """Of one key and value of a tensor's external data; none where the key is another."""
        texts = {_KEY: "", _VALUE: ""}
        for number, left, right in self._fields(start, end):
            if number in texts:
                texts[number] = self._buffer[left:right].decode("utf-8")
        return {texts[_VALUE]} if texts[_KEY] == "location" else set()

    def _fields(self, position: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The length-delimited fields between two offsets, as (field number, start, end)."""
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {_MOST_FIELDS} fields")
            tag, position = self._varint(position, end)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 2**29:  # where parsers disagree on what such a tag means
                raise ValueError(f"field number {number} at byte {position}")
            if kind == _VARINT:
                _, position = self._varint(position, end)
            elif kind == _BYTES:
                length, position = self._varint(position, end)
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

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                break
            byte = self._buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise ValueError(f"a broken number at byte {position}")
