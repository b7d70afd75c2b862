"""Picture files: bytes anywhere, and of a PNG or a JPEG whole parts too, with checksums and lengths mended."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from random import Random

from tests.fuzz.mutators import raw

_PNG = b"\x89PNG\r\n\x1a\n"
_NAMES = (b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"acTL", b"fcTL", b"pHYs")


def mutated(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    if random.random() < 0.5:
        if data.startswith(_PNG):
            return _png(data, random)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data, random)
    return raw.mutated(data, random, others)


def chunk(name: bytes, content: bytes) -> bytes:
    """One of a PNG, whole."""
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def _png(data: bytes, random: Random) -> bytes:
    position, chunks = 8, list[tuple[bytes, bytes]]()
    while position + 8 <= len(data) and len(chunks) < 5000:
        size = int.from_bytes(data[position : position + 4], "big")
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += 12 + size
    for _ in range(random.choice((1, 1, 2))):
        if not chunks:
            break
        at = random.randrange(len(chunks))
        name, content = chunks[at]
        match random.randrange(7):
            case 0:
                del chunks[at]
            case 1:
                chunks[at:at] = [chunks[at]] * random.choice((1, 20, 1500))
            case 2:
                chunks.insert(random.randrange(len(chunks) + 1), chunks.pop(at))
            case 3:
                chunks[at] = (random.choice(_NAMES), content)
            case 4 if name in (b"IDAT", b"iCCP", b"zTXt"):
                inside = raw.mutated(_unpacked(content), random, ())
                chunks[at] = (name, zlib.compress(inside))
            case _:
                chunks[at] = (name, raw.mutated(content, random, ()))
    return (_PNG + b"".join(chunk(name[:4].ljust(4), content) for name, content in chunks))[: raw.MOST_BYTES]


def _unpacked(content: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, 2**16)
    except zlib.error:
        return b""


def _jpeg(data: bytes, random: Random) -> bytes:
    """Segments before the first scan's data; what follows stays."""
    position, segments = 2, list[tuple[int, bytes]]()
    while position + 4 <= len(data) and data[position] == 0xFF and len(segments) < 5000:
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        segments.append((marker, data[position + 4 : position + 2 + size]))
        position += 2 + size
        if marker == 0xDA:
            break
    rest = data[position:]
    for _ in range(random.choice((1, 1, 2))):
        if not segments:
            break
        at = random.randrange(len(segments))
        marker, content = segments[at]
        match random.randrange(7):
            case 0:
                del segments[at]
            case 1:
                segments[at:at] = [segments[at]] * random.choice((1, 20, 300))
            case 2:
                segments.insert(random.randrange(len(segments) + 1), segments.pop(at))
            case 3:
                segments[at] = (
                    random.choice((0xC0, 0xC2, 0xC4, 0xDB, 0xDA, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE)),
                    content,
                )
            case 4:
                rest = raw.mutated(rest, random, ())
            case _:
                segments[at] = (marker, raw.mutated(content, random, ())[:65533])
    head = b"".join(b"\xff%c" % marker + (len(part) + 2).to_bytes(2, "big") + part for marker, part in segments)
    return (b"\xff\xd8" + head + rest)[: raw.MOST_BYTES]
