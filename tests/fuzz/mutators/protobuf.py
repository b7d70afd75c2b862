"""Protobuf's wire format as a tree: fields are changed and the lengths around them mended, mostly."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeAlias

from tests.fuzz.mutators import raw

Field: TypeAlias = "tuple[int, int, int | bytes | list[Field]]"
"""Number, wire type, value: a list where the bytes can be read as a message."""
_LARGE = 256
"""Fields of a message from which on it is kept as bytes: no weights."""
_MOST_COPIED = 2000


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    tree = _read(data)
    if tree is None or random.random() < 0.1:
        return raw.mutated(data, random, others)
    for _ in range(random.choice((1, 1, 2, 4))):
        _change(tree, random)
    return _written(tree, random)[: raw.MOST_BYTES]


def field(number: int, value: int | bytes) -> bytes:
    """One field, written."""
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    return _number(number << 3 | 2) + _number(len(value)) + value


def _read(data: bytes) -> list[Field] | None:
    position, fields = 0, list[Field]()
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if tag < 8 or position < 0 or len(fields) > _LARGE:
            return None
        if kind == 0:
            value, position = _varint(data, position)
        elif kind == 2:
            size, position = _varint(data, position)
            if position < 0 or position + size > len(data):
                return None
            content = data[position : position + size]
            value, position = (_read(content) if 1 < size < 2**14 else None) or content, position + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, position = data[position : position + size], position + size
        else:
            return None
        if position < 0 or position > len(data):
            return None
        fields.append((tag >> 3, kind, value))
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number and what is behind it; -1: there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if not 0 <= position < len(data):
            return 0, -1
        byte, position = data[position], position + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    return 0, -1


def _change(tree: list[Field], random: Random) -> None:
    level = tree
    while True:
        inner = [value for _, _, value in level if isinstance(value, list) and value]
        if not inner or random.random() < 0.3:
            break
        level = random.choice(inner)
    if not level:
        return
    at = random.randrange(len(level))
    number, kind, value = level[at]
    match random.randrange(9):
        case 0:
            del level[at]
        case 1:
            level.insert(random.randrange(len(level) + 1), level[at])
        case 2:
            level[at] = (random.choice((0, 1, 2, 3, 5, 7, 13, 20, 35, number + 1, 2**28, 2**29)), kind, value)
        case 3:
            level[at] = (number, random.randrange(8), value)
        case 4:
            depth = random.choice((1, 3, 200))
            wrapped: Any = value
            for _ in range(depth):
                wrapped = [(number, kind, wrapped)]
            level[at] = (number, 2, wrapped)
        case 5:
            level[at:at] = [level[at]] * min(random.choice((2, 30, 1000)), _MOST_COPIED // _weight(value))
        case _:
            level[at] = (number, kind, _changed(value, random))


def _weight(value: int | bytes | list[Field]) -> int:
    """Fields in it, itself included; bytes count by their length."""
    if isinstance(value, list):
        return 1 + sum(_weight(each) for _, _, each in value)
    return 1 + len(value) // 64 if isinstance(value, bytes) else 1


def _changed(value: int | bytes | list[Field], random: Random) -> int | bytes | list[Field]:
    if isinstance(value, int):
        return random.choice((*raw.EDGES, value + 1)) & 2**64 - 1
    if isinstance(value, bytes):
        return random.choice((b"", b"location", b"../x", b"\xff", value * 50, raw.mutated(value, random, ())))
    return raw.mutated(_written(value, random), random, ())


def _written(tree: Sequence[Field], random: Random) -> bytes:
    pieces = []
    for number, kind, value in tree:
        pieces.append(_number(number << 3 | kind))
        if isinstance(value, list):
            value = _written(value, random)
        if isinstance(value, int):
            pieces.append(_number(value) if kind == 0 else (value & 2**64 - 1).to_bytes(8, "little"))
            continue
        if kind == 2:
            wrong = random.choice((1, -1, 100, 2**32, 2**62)) if random.random() < 0.005 else 0
            pieces.append(_number(max(0, len(value) + wrong)))
        pieces.append(value)
    return b"".join(pieces)


def _number(value: int) -> bytes:
    head = b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])
