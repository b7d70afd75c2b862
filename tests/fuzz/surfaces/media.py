"""A picture as a client of the server sends it: its address, its structure, its pixels."""

from __future__ import annotations

import base64
from pathlib import Path

from hired_runtime.pictures import load_picture
from hired_runtime.serving.api_errors import ApiError, about
from hired_runtime.serving.media import MediaLimits, RequestPictures
from tests.fuzz.mutators import parts, pictures, raw
from tests.fuzz.surface import Feed, Surface
from tests.fuzz.surfaces.pictures import MOST_PIXELS
from tests.fuzz.surfaces.pictures import seeds as drawn

HEAD, PICTURE = "address", "picture"
"""What stands before the picture; the picture's bytes, which are sent in base64 where the address says so."""
ADDRESSES = (
    *(
        b"data:image/png;base64,",
        b"data:image/jpeg;x=y;base64,",
        b"data:,",
        b"file:///a.png",
        b"file://localhost/%2e%2e/x",
    ),
    *(
        b"a.png",
        b"../a.png",
        b"http://localhost/a.png",
        b"file:a%00b",
        b"/etc/passwd",
        b"a/./../a.png",
        b"pipe",
        b"link",
    ),
)


def seeds() -> dict[str, bytes]:
    found = {name: parts.joined({HEAD: ADDRESSES[0], PICTURE: data}) for name, data in drawn().items()}
    return found | {f"address-{i}": parts.joined({HEAD: each, PICTURE: b""}) for i, each in enumerate(ADDRESSES[1:])}


def opened(folder: Path) -> Feed:
    import os

    (folder / "a.png").write_bytes(drawn()["png"])
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    limits = MediaLimits(max_picture_bytes=2**18, max_pixels=MOST_PIXELS, allowed_media_path=folder)

    def feed(data: bytes) -> None:
        files = parts.split(data)
        head = files.get(HEAD, b"")
        body = files.get(PICTURE, b"")
        url = head.decode("utf-8", "replace")
        sent = RequestPictures(limits)
        sent.add(url + (base64.b64encode(body).decode() if url.endswith("base64,") else body.decode("latin-1")), "url")
        with about("url"):
            load_picture(sent.read[0], max_pixels=MOST_PIXELS)

    return feed


SURFACE = Surface(
    "pictures of the server's clients",
    opened,
    seeds,
    parts.of({HEAD: raw.mutated, PICTURE: pictures.mutated}),
    errors=lambda: (ApiError,),
    spend_mib=96,
)
