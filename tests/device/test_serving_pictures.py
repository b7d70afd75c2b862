"""Pictures that a stranger sends: broken, animated, enormous, of other formats, on other machines, in other folders."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hired_runtime.serving.media import MediaLimits
from tests.tiny.served import PICTURE, Reply, Served, data_uri, encoded, served

GOLDEN = Path(__file__).parents[1] / "golden/bundle"
FRAMES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that clients may name, in one that they may not."""
    root = tmp_path_factory.mktemp("media")
    allowed = root / "allowed"
    (allowed / "below").mkdir(parents=True)
    for path in ("allowed/a b.jpg", "allowed/below/card.jpg", "secret.jpg"):
        (root / path).write_bytes(PICTURE)
    (allowed / "link.jpg").symlink_to("below/card.jpg")
    (allowed / "out.jpg").symlink_to(root / "secret.jpg")
    (allowed / "up").symlink_to(root)
    (allowed / "ring").symlink_to("ring")
    (allowed / "text.jpg").write_text("no picture")
    (root / "allowed-too").mkdir()
    (root / "allowed-too/card.jpg").write_bytes(PICTURE)
    os.mkfifo(allowed / "pipe")
    return allowed


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with served(media=MediaLimits(2**20, 10**6, folder)) as each:
        yield each


@pytest.fixture(scope="module")
def closed() -> Iterator[Served]:
    """A server that lets nobody name a file."""
    with served() as each:
        yield each


def png_that_promises(width: int, height: int) -> bytes:
    """A few bytes whose header says that the picture is large."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
REFUSED = {
    "empty": (b"", "empty"),
    "text": (b"no picture at all", "no known format"),
    "svg": (SVG, "no known format"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known format"),
    "tiff": (encoded("TIFF"), "no known format"),
    "bmp": (encoded("BMP"), "no known format"),
    "animated gif": (encoded("GIF", save_all=True, append_images=FRAMES), "animated GIF"),
    "animated png": (encoded("PNG", save_all=True, append_images=FRAMES), "animated PNG"),
    "animated webp": (encoded("WEBP", save_all=True, append_images=FRAMES), "animated WEBP"),
    "bomb": (png_that_promises(50_000, 50_000), "50000"),
    "smaller bomb": (png_that_promises(1001, 1000), "1001x1000"),
    "needle": (png_that_promises(1, 10**6), "a side"),
    "half a header": (encoded("PNG")[:20], "damaged"),
    "half a picture": (PICTURE[: len(PICTURE) // 2], "damaged"),
    "signature": (b"\x89PNG\r\n\x1a\n", ""),
    "jpeg signature": (b"\xff\xd8\xff", ""),
    "webp of nothing": (b"RIFF\x04\0\0\0WEBP", ""),
    "too many bytes": (PICTURE + bytes(2**20), "at most 1048576"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_still_picture_is_refused(server: Served, name: str) -> None:
    picture, words = REFUSED[name]
    reply = server.chat(picture=picture)
    assert reply.status == 400, reply.body
    assert words in reply.error["message"]
    server.works()


@pytest.mark.parametrize(
    "picture",
    [
        encoded("JPEG", "CMYK"),
        encoded("JPEG", "L"),
        encoded("PNG", "RGBA"),
        encoded("PNG", "P"),
        encoded("PNG", "I;16"),
        encoded("GIF"),
        encoded("WEBP"),
        encoded("MPO", save_all=True, append_images=FRAMES),
        encoded("PNG", size=(1, 1)),
        encoded("PNG", size=(900, 3)),
    ],
    ids=["cmyk", "grey", "alpha", "palette", "16 bits", "gif", "webp", "mpo", "dot", "strip"],
)
def test_every_still_picture_is_looked_at(server: Served, picture: bytes) -> None:
    assert server.chat(picture=picture).status == 200


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,@@@@",
        "data:image/png;base64,iVBORw0",
        "data:image/png;base64,iVBO\nRw0K",
        "data:image/png;base64,iVBO Rw0K",
        "data:image/png;base64,iVBORw==K",
        "data:image/png;base64,\u00e9\u00e9\u00e9\u00e9",
        "data:image/png;base64",
        "data:image/png," + "%89PNG",
        "data:text/plain;base64," + base64.b64encode(PICTURE).decode(),
        "data:;base64," + base64.b64encode(PICTURE).decode(),
        "data:image/png;" + "x" * 1000 + ";base64,AAAA",
        "data:",
        "",
    ],
)
def test_a_broken_data_uri_is_refused(server: Served, url: str) -> None:
    reply = server.chat(picture=url)
    assert (reply.status, reply.error["code"]) == (400, "invalid_image")
    assert reply.error["param"] == "messages[0].content[0].image_url.url"
    server.works()


def test_the_media_type_of_a_data_uri_is_not_believed(server: Served) -> None:
    plain = server.chat().json["choices"]
    assert server.chat(picture=data_uri(PICTURE, "image/png")).json["choices"] == plain
    assert server.chat(picture=data_uri(PICTURE, "IMAGE/x-unknown;q=1")).json["choices"] == plain


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "https://example.com/a.png",
        "HTTP://x",
        "ftp://x/a",
        "blob:x",
        "javascript:x",
        "gopher:x",
    ],
)
def test_nothing_is_fetched(server: Served, closed: Served, url: str) -> None:
    for each in (server, closed):
        reply = each.chat(picture=url)
        assert reply.status == 400
        assert "data:image/png;base64" in reply.error["message"]


def test_a_file_below_the_allowed_folder_is_read(server: Served, folder: Path) -> None:
    plain = server.chat().json["choices"]
    for url in (
        f"file://{folder}/below/card.jpg",
        f"file://localhost{folder}/below/card.jpg",
        f"file://{folder}/a%20b.jpg",
        f"{folder}/below/card.jpg",
        f"{folder}/below/../link.jpg",
        "below/card.jpg",
        "./link.jpg",
    ):
        reply = server.chat(picture=url)
        assert reply.status == 200, (url, reply.body)
        assert reply.json["choices"] == plain


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "below/../../secret.jpg",
        "out.jpg",
        "up/secret.jpg",
        "../allowed-too/card.jpg",
        "ring",
        "missing.jpg",
        "below",
        "pipe",
        "text.jpg",
        "%2e%2e/secret.jpg",
        "a\0b",
        "x" * 5000,
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
    ],
)
@pytest.mark.parametrize("scheme", ["file://", ""])
def test_any_other_file_is_refused(server: Served, folder: Path, name: str, scheme: str) -> None:
    url = f"{scheme}{folder / name}" if scheme else name
    reply = server.chat(picture=url)
    assert reply.status == 400, reply.body
    if not scheme:  # else the client has written the folder itself
        assert str(folder) not in reply.body.decode()
    server.works()


def test_a_path_that_no_system_takes_is_refused_before_it_is_resolved(server: Served, folder: Path) -> None:
    """Which would take the square of its length: seconds for these."""
    for url in ("a/" * 100_000, f"file://{folder}/" + "../" * 60_000):
        reply = server.chat(picture=url)
        assert (reply.status, reply.error["code"]) == (400, "invalid_image")
        assert f"{len(url)} characters; expected at most 4096" in reply.error["message"]


def test_what_is_outside_is_refused_alike_whether_it_is_there_or_not(server: Served) -> None:
    there, missing = (server.chat(picture=f"../{name}.jpg").error["message"] for name in ("secret", "secre2"))
    assert there.replace("secret", "secre2") == missing


def test_other_hosts_and_queries_of_file_addresses_are_refused(server: Served, folder: Path) -> None:
    for url in (
        f"file://elsewhere{folder}/a.jpg",
        f"file://{folder}/below/card.jpg?x",
        "file://",
        "file:",
        "FILE:///x",
    ):
        assert server.chat(picture=url).status == 400


def test_no_file_is_read_unless_a_folder_is_allowed(closed: Served, folder: Path) -> None:
    for url in (f"file://{folder}/below/card.jpg", f"{folder}/below/card.jpg", "card.jpg"):
        reply = closed.chat(picture=url)
        assert reply.status == 400
        assert "--allowed-media-path" in reply.error["message"]


def test_a_picture_belongs_into_a_users_message(server: Served) -> None:
    part = {"type": "image_url", "image_url": {"url": data_uri(PICTURE)}}
    for role in ("system", "assistant"):
        reply = server.post({"model": "cards", "messages": [{"role": role, "content": [part]}]})
        assert (reply.status, reply.error["param"]) == (400, "messages[0].content[0]")


def test_the_pixels_of_a_request_are_counted_together() -> None:
    def parts(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
        pictures = [data_uri(encoded("PNG", size=size), "image/png") for size in sizes]
        return [{"type": "image_url", "image_url": {"url": each}} for each in pictures]

    with served(GOLDEN, media=MediaLimits(max_pixels=2000)) as server:

        def ask(*sizes: tuple[int, int]) -> Reply:
            content = [*parts(*sizes), {"type": "text", "text": "Why?"}]
            messages = [{"role": "user", "content": content}]
            return server.post({"model": "cards", "messages": messages, "max_tokens": 1, "visual_tokens": "10%"})

        assert ask((40, 30), (40, 20)).status == 200
        reply = ask((40, 30), (40, 21))
        assert (reply.status, reply.error["code"]) == (400, "invalid_image")
        assert reply.error["param"] == "messages[0].content[1].image_url.url"
        assert "2040 pixels together; expected at most 2000 in a request" in reply.error["message"]
        assert ask((40, 30), (40, 20)).status == 200


def test_detail_is_auto_or_high(server: Served) -> None:
    def ask(detail: str) -> int:
        part = {"type": "image_url", "image_url": {"url": data_uri(PICTURE), "detail": detail}}
        text = {"type": "text", "text": "Why?"}
        return server.post({"model": "cards", "messages": [{"role": "user", "content": [part, text]}]}).status

    assert [ask(detail) for detail in ("auto", "high", "low")] == [200, 200, 400]
