"""Picture files of so many parts that a decoder would be busy for minutes, and good ones that have many parts too."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from hired_edge.errors import InputError
from hired_runtime.pictures import load_picture, picture_header
from hired_runtime.serving.picture_structure import _MOST, _jpeg, check_structure
from tests.tiny.served import PICTURE, encoded, served

PNG, JPEG, GIF, WEBP = (encoded(form) for form in ("PNG", "JPEG", "GIF", "WEBP"))
PROGRESSIVE = encoded("JPEG", progressive=True, optimize=True)
HEADER_OF_PNG = 33
HEADER_OF_GIF = 13 + 3 * 2 ** ((GIF[10] & 7) + 1)
LAST_SCAN = PROGRESSIVE[PROGRESSIVE.rfind(b"\xff\xda") : -2]
SEGMENT = b"\xff\xee\0\2"
EXIF = b"\xff\xe1\0\x08Exif\0\0"
COMMENT = b"\x21\xfe\x01a\0"


def chunk(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def inside(data: bytes, position: int, more: bytes) -> bytes:
    return data[:position] + more + data[position:]


def riff(data: bytes) -> bytes:
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


BOMBS = {
    "scans": (inside(PROGRESSIVE, -2, 100 * LAST_SCAN), "64 scans"),
    "segments": (inside(JPEG, 2, 2000 * SEGMENT), "1000 segments"),
    "segments behind the pixels": (inside(JPEG, -2, 2000 * SEGMENT), "1000 segments"),
    "segments that another marker seems to hide": (inside(JPEG, 2, b"\xff\xf0\xff\xff" + 2000 * SEGMENT), "segments"),
    "markers alone": (inside(JPEG, 20, 2000 * b"\xff\xd0"), "1000 segments"),
    "ends before the pixels": (inside(JPEG, 2, b"\xff\xd9" + 2000 * SEGMENT), "1000 segments"),
    "zeros between segments": (inside(JPEG, 20, bytes(2000)), "1000 segments"),
    "exif": (inside(JPEG, 2, 100 * EXIF), "64 EXIF segments"),
    "chunks": (inside(PNG, HEADER_OF_PNG, 2000 * chunk(b"teSt")), "1000 chunks"),
    "chunks behind the pixels": (inside(PNG, -12, 2000 * chunk(b"teSt")), "1000 chunks"),
    "pixels in pieces": (inside(PNG, HEADER_OF_PNG, 3000 * chunk(b"IDAT")), "pieces of pixels"),
    "colour profiles": (
        inside(PNG, HEADER_OF_PNG, 20 * chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20)))),
        "16 colour profiles",
    ),
    "comments": (inside(GIF, HEADER_OF_GIF, 3000 * COMMENT), "blocks"),
    "comment of many blocks": (inside(GIF, HEADER_OF_GIF, b"\x21\xfe" + 3000 * b"\x01a" + b"\0"), "blocks"),
    "comments behind the pixels": (inside(GIF, -1, 3000 * COMMENT), "blocks"),
    "zeros between blocks": (inside(GIF, HEADER_OF_GIF, bytes(3000)), "blocks"),
    "an extension that begins with its end": (
        inside(GIF, HEADER_OF_GIF, b"\x21\x01\0\x02\x3b\x3b\0" + 3000 * COMMENT),
        "blocks",
    ),
    "a loop without its count": (
        inside(GIF, HEADER_OF_GIF, b"\x21\xff\x0bNETSCAPE2.0\0\x02\x3b\x3b\0" + 3000 * COMMENT),
        "blocks",
    ),
    "riff chunks": (riff(WEBP + 2000 * b"JUNK\0\0\0\0"), "1000 chunks"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_of_too_many_parts_is_refused(name: str) -> None:
    data, words = BOMBS[name]
    with pytest.raises(InputError, match=rf"more than .*{words}"):
        check_structure(data)


@pytest.mark.parametrize("name", [name for name in BOMBS if "ends" not in name and "exif" not in name])
def test_pillow_would_have_read_it(name: str) -> None:
    """What is counted is what a decoder goes through: the file is no worse otherwise."""
    with picture_header(BOMBS[name][0]) as header:
        assert header.size == (40, 30)


def test_the_server_refuses_them_and_goes_on() -> None:
    with served() as server:
        for data, words in BOMBS.values():
            reply = server.chat(picture=data)
            assert reply.status == 400
            assert words in reply.error["message"]
            assert reply.error["param"] == "messages[0].content[0].image_url.url"
            assert server.post(data, {"Content-Type": "image/png"}, "/api/pictures").status == 400
        server.works()


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


DRAW = random.Random(1)
NOISE = Image.frombytes("RGB", (900, 700), DRAW.randbytes(900 * 700 * 3))
XMP = b"\x21\xff\x0bXMP DataXMP" + b"<rdf/>" * 5000 + b"\x01" + bytes(range(255, -1, -1)) + b"\0"
GOOD = {
    "progressive": lambda: saved(NOISE, "JPEG", quality=97, progressive=True),
    "restart markers": lambda: saved(NOISE, "JPEG", quality=97, restart_marker_blocks=1),
    "thumbnail": lambda: inside(PICTURE, 2, b"\xff\xe1" + struct.pack(">H", 2 + len(PROGRESSIVE)) + PROGRESSIVE),
    "film behind the picture": lambda: saved(NOISE, "JPEG") + 100 * LAST_SCAN + DRAW.randbytes(4 * 2**20),
    "several pictures": lambda: saved(NOISE, "MPO", save_all=True, append_images=20 * [NOISE.resize((64, 48))]),
    "colour profile in parts": lambda: saved(NOISE, "JPEG", icc_profile=DRAW.randbytes(10**6)),
    "png of small pieces": lambda: in_pieces(saved(NOISE, "PNG"), 1024),
    "gif": lambda: saved(NOISE.quantize(200), "GIF"),
    "gif with metadata": lambda: inside(GIF, HEADER_OF_GIF, XMP),
    "webp": lambda: saved(NOISE, "WEBP", lossless=True, method=0, xmp=DRAW.randbytes(1000)),
}


def in_pieces(png: bytes, size: int) -> bytes:
    """The same with its pixels in chunks of `size` bytes."""
    pixels, position = b"", HEADER_OF_PNG
    while png[position + 4 : position + 8] == b"IDAT":
        length = int.from_bytes(png[position : position + 4], "big")
        pixels, position = pixels + png[position + 8 : position + 8 + length], position + 12 + length
    pieces = (chunk(b"IDAT", pixels[start : start + size]) for start in range(0, len(pixels), size))
    return png[:HEADER_OF_PNG] + b"".join(pieces) + png[position:]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_picture_may_have_many_parts(name: str) -> None:
    data = GOOD[name]()
    check_structure(data)
    assert min(load_picture(data).size) >= 30


def test_the_limits_are_far_from_what_encoders_write() -> None:
    parts = [part for part, _ in _jpeg(saved(NOISE, "JPEG", progressive=True, optimize=True))]
    assert 5 * parts.count("scans") < _MOST["scans"][0]
    assert 20 * parts.count("segments") < _MOST["segments"][0]


@pytest.mark.parametrize("data", [PNG, JPEG, PROGRESSIVE, GIF, WEBP], ids=["png", "jpeg", "progressive", "gif", "webp"])
def test_what_is_cut_off_is_the_decoders_to_refuse(data: bytes) -> None:
    for length in range(len(data)):
        check_structure(data[:length])
