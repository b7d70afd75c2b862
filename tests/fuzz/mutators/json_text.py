"""JSON as a tree that keeps what a dictionary loses: keys that stand twice, numbers as they were written.

`of(strings)` makes a mutator; most of what it gives is JSON still. `lines` is the same of JSON lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from tests.fuzz.mutators import raw
from tests.fuzz.surface import Mutator

Strings = Mapping[str, Callable[[str, Random], str]]
"""By key: how a string is changed that stands below it."""


class Members(list[tuple[str, Any]]):
    """An object: (key, value) pairs, any of them more than once."""


class Literal(str):
    """What is written as it is: a number that Python would not write so, or no JSON at all."""


_NUMBERS = (
    *map(Literal, map(str, raw.EDGES)),
    *map(Literal, ("-0", "0.0", "-0.5", "1e-400", "1e400", "1e999999999", "NaN", "Infinity", "-Infinity", "2.0")),
    *map(Literal, ("9" * 30, "9" * 400, "9" * 5000, "1.7976931348623157e308", "5e-324")),
)
_TEXTS = (
    *("", " ", "\0", "\n", "a\nb", "\ud800", "\U0001f600", "\ue000", "\ufeff", "é", "a" * 300, "x" * 5000, "\x1b[31m"),
    *("../x", "/etc/passwd", "a/../../b", "C:\\x", "x" * 256, "..", "-", "0", "-1", "20%", "100%", "1e9%", "0%", "999"),
    *("null", "true", "{{ 7 * 7 }}", "%s%s%s", "{0.__class__}", "<image>", "</s>", "data:,", "http://x/", "[INST]"),
)
_DEEPEST = 60
"""What is nested deeper is changed as bytes."""
_MOST_COPIED = 5000
_WORDS = (Literal("null"), Literal("true"), Literal("false"), Literal("{}"), Literal("[]"), Literal("[[]]"))


def of(strings: Strings | None = None) -> Mutator:
    """A mutator of JSON text."""

    def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
        tree = _read(data)
        if tree is None or random.random() < 0.08:
            return raw.mutated(data, random, others)
        holder = [tree]
        other = _read(random.choice(others)) if others else None
        for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
            _change(holder, random, other, strings or {})
        return _written(holder[0]).encode("utf-8", "surrogatepass")[: raw.MOST_BYTES]

    return mutated


def lines(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """JSON lines: a line is changed, doubled, moved, cut or left out; or how lines end and begin."""
    found = data.split(b"\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(found))
        match random.randrange(8):
            case 0:
                found.insert(at, random.choice(found))
            case 1:
                found[at] = found[at][: random.randrange(len(found[at]) + 1)]
            case 2:
                found.pop(at)
                found = found or [b""]
            case 3:
                found[at] += random.choice((b"\r", b" ", b"\0", b"\xff", b"\xe2\x80\xa8"))
            case 4:
                found[at] = random.choice((b"\xef\xbb\xbf", b" ", b"\xff\xfe", b"[", b"x" * 2**17)) + found[at]
            case _:
                parts = [line for other in others for line in other.split(b"\n")]
                found[at] = _line(found[at], random, parts)
    return b"\n".join(found)[: raw.MOST_BYTES]


_line = of()


def _read(data: bytes) -> Any:
    try:
        tree = json.loads(
            data, object_pairs_hook=Members, parse_float=Literal, parse_int=Literal, parse_constant=Literal
        )
    except (ValueError, RecursionError):
        return None
    return tree if _depth(tree) < _DEEPEST else None


def _depth(tree: Any) -> int:
    level, depth = [tree], 0
    while level and depth < _DEEPEST:
        level = [item for node in level if isinstance(node, list) for item in _items(node)]
        depth += 1
    return depth


def _weight(node: Any) -> int:
    """Values in it, itself included."""
    return 1 + sum(map(_weight, _items(node))) if isinstance(node, list) else 1


def _copied(node: Any) -> Any:
    """What may come to stand in itself."""
    if isinstance(node, Members):
        return Members([(key, _copied(value)) for key, value in node])
    return [_copied(item) for item in node] if isinstance(node, list) else node


def _items(node: Any) -> list[Any]:
    return [value for _, value in node] if isinstance(node, Members) else node


def _places(node: Any, key: str, found: list[tuple[Any, int, str]]) -> None:
    """Every place that a value stands in: its container, the index there, and the nearest key above it."""
    pairs = isinstance(node, Members)
    for index, item in enumerate(node if isinstance(node, list) else ()):
        name, value = item if pairs else (key, item)
        found.append((node, index, name))
        _places(value, name, found)


def _change(holder: list[Any], random: Random, other: Any, strings: Strings) -> None:
    found: list[tuple[Any, int, str]] = []
    _places(holder, "", found)
    # One of the uppermost, in a third of all cases: a large vocabulary would draw nearly all changes.
    container, index, key = random.choice(found[:40] if random.random() < 0.3 else found)
    pair = container[index] if isinstance(container, Members) else None
    value = container[index] if pair is None else pair[1]
    if container is not holder and random.random() < 0.25:
        _rearrange(container, index, random)
        return
    if pair is not None and random.random() < 0.1:
        container[index] = (_text(pair[0], random), value)
        return
    changed = _value(value, key, random, found, other, strings)
    container[index] = changed if pair is None else (pair[0], changed)


def _rearrange(container: Any, index: int, random: Random) -> None:
    match random.randrange(5):
        case 0 | 1:
            del container[index]
        case 2:
            container.insert(random.randrange(len(container) + 1), container[index])
        case 3:
            container.insert(index, container[random.randrange(len(container))])
        case _:
            item, pairs = container[index], isinstance(container, Members)
            copies = min(random.choice((3, 40, 400)), _MOST_COPIED // _weight(item[1] if pairs else item))
            container[index:index] = [(f"{item[0]}{n}", item[1]) if pairs else item for n in range(copies)]


def _value(
    value: Any, key: str, random: Random, found: list[tuple[Any, int, str]], other: Any, strings: Strings
) -> Any:
    choice = random.random()
    if choice < 0.5:
        if isinstance(value, Literal):
            return _number(value, random)
        if isinstance(value, str):
            return strings[key](value, random) if key in strings and random.random() < 0.8 else _text(value, random)
    if choice < 0.6:
        return _text(value if isinstance(value, str) else "", random)
    if choice < 0.7:
        return random.choice(_NUMBERS)
    if choice < 0.78:
        return random.choice(_WORDS)
    if choice < 0.88:  # what stands elsewhere, here
        taken: list[tuple[Any, int, str]] = []
        _places([other], "", taken)
        container, index, _ = random.choice(taken if other is not None and random.random() < 0.5 else found)
        item = container[index]
        item = item[1] if isinstance(container, Members) else item
        return _copied(item) if _weight(item) < _MOST_COPIED else value
    if choice < 0.93:
        return [value] * random.choice((1, 2, 3))
    if choice < 0.96:
        return Members([(random.choice(("", "a", "type", key)), value)])
    depth = random.choice((3, 40, 2000))
    opening = random.choice(("[", '{"a":'))
    return Literal(opening * depth + "0" + ("]" if opening == "[" else "}") * depth)


def _number(value: Literal, random: Random) -> Literal:
    try:
        number = int(value)
    except ValueError:
        return random.choice(_NUMBERS)
    near = (number + 1, number - 1, -number, number * 2, number // 2, number * 64, 10 ** random.randrange(3, 20))
    return Literal(str(random.choice(near))) if random.random() < 0.7 else random.choice(_NUMBERS)


def _text(value: str, random: Random) -> str:
    at = random.randrange(len(value) + 1)
    match random.randrange(6):
        case 0 | 1:
            return random.choice(_TEXTS)
        case 2:
            return value[:at]
        case 3:
            return value[:at] + random.choice(_TEXTS) + value[at:]
        case 4:
            return (
                value[:at] + chr(random.choice((0, 10, 32, 47, 92, 0x2028, 0xD800, 0xFFFD, 0x10FFFF))) + value[at + 1 :]
            )
        case _:
            return value.swapcase() if random.random() < 0.5 else value * random.choice((2, 50))


def _written(node: Any) -> str:
    if isinstance(node, Members):
        return "{" + ",".join(f"{json.dumps(key)}:{_written(value)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(_written, node)) + "]"
    return str(node) if isinstance(node, Literal) else json.dumps(node)
