"""How many parts a picture file is made of, counted before a decoder takes its time over each of them.

Only lengths are read, in the order in which Pillow and the libraries below it read them. What is cut off or broken ends
the walk: it is the decoder's to refuse. Knows nothing of requests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

from hired_edge.errors import InputError

Parts: TypeAlias = "Iterator[tuple[str, int]]"

#: Of a kind of part, so many are taken, and one more for each of so many bytes of the file.
_MOST: dict[str, tuple[int, float]] = {
    "chunks": (1000, float("inf")),
    "colour profiles": (16, float("inf")),  # Pillow unpacks each of them, to 1 MiB
    "segments": (1000, float("inf")),
    "EXIF segments": (64, float("inf")),  # Pillow copies them all for each one more
    "scans": (64, float("inf")),  # each is a pass over all pixels; libjpeg writes 10, thorough optimizers some more
    "pieces of pixels": (1000, 512),  # encoders cut them at 8 KiB or more
    "blocks": (1000, 128),  # of at most 255 bytes each
}

# Of a marker inside a scan's data, 00 stands for FF itself, FF fills, and D0 to D7 let a decoder find its place again.
_BEFORE_PIXELS = re.compile(rb"\xff([^\x00\xff])")
_AMONG_PIXELS = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_MEASURED = frozenset((*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDA, 0xF0), 0xFE))
"""Markers that a length follows."""
_END, _SCAN, _EXIF = b"\xd9", b"\xda", b"\xe1"
_OF_PNG = {b"IDAT": "pieces of pixels", b"fdAT": "pieces of pixels", b"iCCP": "colour profiles"}


def check_structure(data: bytes) -> None:
    """Of a PNG, JPEG, GIF or WebP file; what is none of them passes.

    Raises:
        InputError: more parts than any good encoder writes.
    """
    walk = next((walk for signature, walk in _WALKS.items() if data.startswith(signature)), None)
    if walk is None:
        return
    counts: Counter[str] = Counter()
    most = {part: int(flat + len(data) // size) for part, (flat, size) in _MOST.items()}
    try:
        for part, count in walk(data):
            counts[part] += count
            if counts[part] > most[part]:
                raise InputError(
                    f"a picture of more than {most[part]} {part} ({len(data)} bytes)",
                    expected="no more",
                    fix="save it again with another program",
                )
    except IndexError:  # it is cut off
        return


def _png(data: bytes) -> Parts:
    position, name = 8, b""
    while position < len(data) and name != b"IEND":
        name = data[position + 4 : position + 8]
        yield _OF_PNG.get(name, "chunks"), 1
        position += 12 + int.from_bytes(data[position : position + 4], "big")


def _webp(data: bytes) -> Parts:
    position = 12
    while position < len(data):
        yield "chunks", 1
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2


def _jpeg(data: bytes) -> Parts:
    """Of the first picture alone: behind its end a camera may have put others, or a film."""
    position, markers = 2, _BEFORE_PIXELS
    while found := markers.search(data, position):
        if found[1] == _END and markers is _AMONG_PIXELS:
            return
        # Pillow looks at every byte between two segments
        yield "segments", 1 if markers is _AMONG_PIXELS else 1 + found.start() - position
        position = found.end()
        if found[1] == _SCAN:
            yield "scans", 1
            markers = _AMONG_PIXELS
        elif found[1] == _EXIF and data.startswith(b"Exif", position + 2):
            yield "EXIF segments", 1
        if found[1][0] in _MEASURED:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))


def _gif(data: bytes) -> Parts:
    """Up to a second picture, which makes it an animation."""
    position, pictures = 13 + _palette(data[10]), 0
    while position < len(data) and data[position] != ord(";"):
        yield "blocks", 1
        introducer, position = data[position], position + 1
        if introducer == ord("!"):
            position = yield from _extension(data, position, first=pictures == 0)
        elif introducer == ord(","):
            pictures += 1
            if pictures == 2:
                return
            position = yield from _blocks(data, position + 9 + _palette(data[position + 8]) + 1)


def _extension(data: bytes, position: int, *, first: bool) -> Generator[tuple[str, int], None, int]:
    """As Pillow reads it: of all but comments the first block is skipped, even if that is the one that ends them."""
    label, position = data[position], position + 1
    if label != 0xFE:
        block, position = data[position + 1 : position + 12], position + 1 + data[position]
        if label == 0xFF and first and block.startswith(b"NETSCAPE2.0"):
            position += 1 + data[position]
    return (yield from _blocks(data, position))


def _blocks(data: bytes, position: int) -> Generator[tuple[str, int], None, int]:
    """Those up to an empty one."""
    while size := data[position]:
        yield "blocks", 1
        position += 1 + size
    return position + 1


def _palette(flags: int) -> int:
    """Its bytes, if there is one."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_WALKS: dict[bytes, Callable[[bytes], Parts]] = {
    b"\x89PNG": _png,
    b"\xff\xd8": _jpeg,
    b"GIF8": _gif,
    b"RIFF": _webp,
}
