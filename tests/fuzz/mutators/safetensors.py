"""Safetensors files: the header's JSON, with the length before it and often the data behind it mended."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.fuzz.mutators import json_text, raw

_header = json_text.of()


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8 or random.random() < 0.1:
        return raw.mutated(data, random, others)
    header, tensors = data[8 : 8 + size], data[8 + size :]
    match random.randrange(10):
        case 0:
            tensors = raw.mutated(tensors, random, others)
        case 1:
            tensors = tensors[: random.randrange(len(tensors) + 1)]
        case 2:
            size = random.choice((*raw.EDGES, len(data), len(data) - 8)) & 2**64 - 1
            return size.to_bytes(8, "little") + header + tensors
        case _:
            other = [each[8 : 8 + int.from_bytes(each[:8], "little")] for each in others]
            header = _header(header, random, other)
    return len(header).to_bytes(8, "little") + header + tensors
