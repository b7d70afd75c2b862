"""Bytes without a known form: flips, cuts, copies, numbers at the edges, and pieces of other inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MOST_BYTES = 2**18
"""Of what a mutator makes."""
EDGES = (0, 1, -1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """One to four changes."""
    for _ in range(random.choice((1, 1, 2, 4))):
        data = random.choice(_CHANGES)(data, random, others)
    return data[:MOST_BYTES]


def place(data: bytes, random: Random) -> int:
    """An offset; near the beginning in half of all cases, where headers are."""
    return random.randrange(min(len(data), random.choice((64, len(data) + 1))) + 1)


def span(data: bytes, random: Random) -> tuple[int, int]:
    """A short half-open range, or seldom a long one."""
    start = place(data, random)
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 32, random.randrange(len(data) + 1))))


def _flip(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    at = place(data, random)
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if at < len(data) else data


def _set(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    at = place(data, random)
    return data[:at] + bytes([random.choice((0, 255, random.randrange(256)))]) + data[at + 1 :]


def _number(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    width = random.choice((1, 2, 4, 8))
    number = (random.choice(EDGES) + random.choice((0, 0, len(data))) & 256**width - 1).to_bytes(
        width, random.choice(("little", "big"))
    )
    at = place(data, random)
    return data[:at] + number + data[at + random.choice((width, width, 0)) :]


def _remove(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, stop = span(data, random)
    return data[:start] + data[stop:]


def _repeat(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, stop = span(data, random)
    times = random.choice((1, 1, 2, 16, 256))
    return data[:stop] + (data[start:stop] * times)[:MOST_BYTES] + data[stop:]


def _insert(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    at = place(data, random)
    return data[:at] + random.randbytes(random.choice((1, 2, 4, 16))) + data[at:]


def _take(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    other = random.choice(others) if others else data
    start, stop = span(other, random)
    at = place(data, random)
    return data[:at] + other[start:stop] + data[at + random.choice((0, stop - start)) :]


def _cut(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


_CHANGES: tuple[Callable[[bytes, Random, Sequence[bytes]], bytes], ...] = (
    _flip,
    _flip,
    _set,
    _set,
    _number,
    _number,
    _number,
    _remove,
    _repeat,
    _insert,
    _take,
    _cut,
)
