"""Loading: every mode and orientation as Pillow itself converts it, and one clear line for everything else."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from hired_edge.errors import InputError
from hired_runtime.pictures import load_picture

ORIENTATION = 0x0112


def noise(mode: str, size: tuple[int, int] = (37, 23), seed: int = 0) -> Image.Image:
    """A picture of random pixels in any mode that can be saved."""
    width, height = size
    rng = np.random.default_rng(seed)
    if mode.startswith("I;16"):
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    rgba = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode) if mode != "LA" else rgba.convert("LA")


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def frames() -> list[Image.Image]:
    return [noise("RGB", seed=seed) for seed in range(3)]


FILES: dict[str, Callable[[], bytes]] = {
    "rgb.png": lambda: encoded(noise("RGB"), "PNG"),
    "rgb.jpg": lambda: encoded(noise("RGB"), "JPEG"),
    "rgb.bmp": lambda: encoded(noise("RGB"), "BMP"),
    "rgb.webp": lambda: encoded(noise("RGB"), "WEBP"),
    "rgb.tiff": lambda: encoded(noise("RGB"), "TIFF"),
    "rgb.ppm": lambda: encoded(noise("RGB"), "PPM"),
    "grey.png": lambda: encoded(noise("L"), "PNG"),
    "grey.jpg": lambda: encoded(noise("L"), "JPEG"),
    "bits.png": lambda: encoded(noise("1"), "PNG"),
    "grey-16-bit.png": lambda: encoded(noise("I;16"), "PNG"),
    "grey-16-bit.tiff": lambda: encoded(noise("I;16"), "TIFF"),
    "palette.png": lambda: encoded(noise("P"), "PNG"),
    "palette-one-transparent.png": lambda: encoded(noise("P"), "PNG", transparency=3),
    "palette-transparent.png": lambda: encoded(noise("P"), "PNG", transparency=bytes(range(256))),
    "rgba.png": lambda: encoded(noise("RGBA"), "PNG"),
    "rgba.webp": lambda: encoded(noise("RGBA"), "WEBP", lossless=True),
    "grey-alpha.png": lambda: encoded(noise("LA"), "PNG"),
    "cmyk.jpg": lambda: encoded(noise("CMYK"), "JPEG"),
    "cmyk.tiff": lambda: encoded(noise("CMYK"), "TIFF"),
    "animated.gif": lambda: encoded(frames()[0], "GIF", save_all=True, append_images=frames()[1:]),
    "animated.webp": lambda: encoded(frames()[0], "WEBP", save_all=True, append_images=frames()[1:]),
    "pages.tiff": lambda: encoded(frames()[0], "TIFF", save_all=True, append_images=frames()[1:]),
    "turned.png": lambda: encoded(noise("RGB"), "PNG", exif=exif(6)),
    "turned.webp": lambda: encoded(noise("RGB"), "WEBP", exif=exif(8)),
    "turned.tiff": lambda: encoded(noise("RGB"), "TIFF", exif=exif(5)),
    "turned-grey.jpg": lambda: encoded(noise("L"), "JPEG", exif=exif(3)),
    **{f"turned-{n}.jpg": lambda n=n: encoded(noise("RGB"), "JPEG", exif=exif(n)) for n in range(1, 9)},
}


def by_pillow(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        return upright.convert("RGB")


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    """The message, which must have all its parts on one line."""
    assert error.value.got
    assert error.value.expected
    assert error.value.fix
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_equals_pillow_from_a_path_from_bytes_and_from_a_picture(name: str, tmp_path: Path) -> None:
    data = FILES[name]()
    path = tmp_path / name
    path.write_bytes(data)
    expected = np.asarray(by_pillow(data))
    for source in (path, str(path), data, Image.open(path)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            picture = load_picture(source)
        assert picture.mode == "RGB"
        assert picture.size == expected.shape[1::-1]
        assert np.array_equal(np.asarray(picture), expected)


def test_orientation_is_applied() -> None:
    sideways = Image.new("RGB", (60, 40), "white")
    sideways.paste("red", (0, 0, 60, 8))  # the top edge as stored; 6 turns it to the right
    upright = np.asarray(load_picture(encoded(sideways, "PNG", exif=exif(6))))
    assert upright.shape == (60, 40, 3)
    assert (upright[:, -8:] == (255, 0, 0)).all()


def test_first_frame_of_an_animation() -> None:
    assert np.array_equal(np.asarray(load_picture(FILES["pages.tiff"]())), np.asarray(frames()[0]))


def test_a_given_picture_is_left_unchanged() -> None:
    given = noise("P")
    given.info["transparency"] = bytes(256)
    before = given.tobytes()
    load_picture(given).paste("red", (0, 0, 10, 10))
    assert given.mode == "P"
    assert given.tobytes() == before
    assert given.info["transparency"] == bytes(256)


def test_the_file_is_closed_and_the_picture_stays(tmp_path: Path) -> None:
    path = tmp_path / "animated.gif"
    path.write_bytes(FILES["animated.gif"]())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        picture = load_picture(path)
    path.unlink()
    assert np.asarray(picture).shape == (23, 37, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "is empty (0 bytes)", id="empty"),
        pytest.param(b"This is not a picture.\n" * 9, "is not a picture", id="text"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture", id="PostScript"),
        pytest.param(FILES["rgb.png"]()[:-300], "truncated or damaged", id="truncated PNG"),
        pytest.param(FILES["rgb.jpg"]()[:-300], "truncated or damaged", id="truncated JPEG"),
        pytest.param(FILES["rgb.tiff"]()[:500], "truncated or damaged", id="truncated TIFF"),
    ],
)
def test_bad_contents(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(InputError) as error:
            load_picture(source)
        message = one_line(error)
        assert words in message
        assert source is content or "picture.png" in message


def test_bad_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        str(tmp_path / "none.jpg"): "does not exist",
        str(tmp_path): "is a directory",
        str(tmp_path / "pipe"): "is not a regular file",
        "http://example.com/cat.jpg": "a file on this machine",
        "HTTPS://example.com/cat.jpg": "a file on this machine",
        "data:image/png;base64," + "A" * 9999: "a file on this machine",
        "two\nlines\0.jpg": "cannot be opened",
        "x" * 5000: "cannot be opened",
        "": "the empty path does not exist",
    }
    for source, words in cases.items():
        with pytest.raises(InputError) as error:
            load_picture(source)
        assert words in one_line(error)
        assert len(str(error.value)) < 400


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "private.png"
    path.write_bytes(FILES["rgb.png"]())

    def refused(*_: object) -> None:  # root may read everything, so a mode of 000 would prove nothing
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(InputError, match=r"private\.png may not be read"):
        load_picture(path)


def test_another_type_of_source() -> None:
    source: Any = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="ndarray") as error:
        load_picture(source)
    assert "Image.fromarray" in one_line(error)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_zero_sized_picture(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"{size[0]}x{size[1]} pixels") as error:
        load_picture(Image.new("RGB", size))
    one_line(error)


def test_zero_sized_file() -> None:
    with pytest.raises(InputError) as error:
        load_picture(b"P6 0 5 255\n")
    one_line(error)


@pytest.mark.parametrize("side", [9_500, 12_000, 40_000])  # below Pillow's warning, above it, above its error
@pytest.mark.filterwarnings("error")
def test_decompression_bomb_is_refused_before_it_is_decoded(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The header promises side x side pixels; there are none.
    bomb = encoded(Image.new("1", (8, 8)), "PNG")
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + bomb[24:29]
    bomb = bomb[:12] + header + zlib.crc32(header).to_bytes(4, "big") + bomb[33:]

    def decoded(*_: object) -> None:
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(InputError) as error:
        load_picture(bomb, max_pixels=90_000_000)
    message = one_line(error)
    assert str(side**2) in message
    assert "90000000" in message


def test_the_limit_itself_is_allowed() -> None:
    assert load_picture(noise("RGB"), max_pixels=37 * 23).size == (37, 23)
    for source in (noise("RGB"), FILES["rgb.png"]()):
        with pytest.raises(InputError, match=r"37x23 pixels \(851 in all\)"):
            load_picture(source, max_pixels=37 * 23 - 1)


def test_a_side_that_resizing_could_not_bear() -> None:
    with pytest.raises(InputError, match="1x65536 pixels"):
        load_picture(Image.new("L", (1, 65536)))
    assert load_picture(Image.new("L", (1, 65535))).size == (1, 65535)


def test_pillows_limit_may_be_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="too large"):
        load_picture(FILES["rgb.png"]())


def test_pillows_settings_are_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:]
    load_picture(FILES["rgb.png"]())
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:]) == before


@given(name=st.sampled_from(sorted(FILES)), data=st.data())
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_a_picture_or_our_error(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name]())
    for _ in range(data.draw(st.integers(0, 4))):
        # Headers hold most of what can go wrong.
        place = data.draw(st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    with suppress(InputError):
        assert load_picture(bytes(content), max_pixels=1_000_000).mode == "RGB"


def test_a_gif_that_promises_less_than_its_first_frame_takes_no_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen of 9x9, a frame of 12000x12000 that is to be cleared: Pillow makes what is to be left of it at once."""
    made = list[tuple[int, int]]()
    fill = Image.core.fill

    def watched(mode: str, size: tuple[int, int], *colour: object) -> object:
        made.append(size)
        return fill(mode, size, *colour)

    monkeypatch.setattr(Image.core, "fill", watched)
    clear, frame = b"!\xf9\x04\x08\0\0\0\0", b",\0\0\0\0" + 2 * (12000).to_bytes(2, "little") + b"\0"
    bomb = b"GIF89a" + 2 * (9).to_bytes(2, "little") + b"\x80\0\0" + bytes(6) + clear + frame + b"\x02\x02\x44\x01\0;"
    usual = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match=r"too large.*expected at most 4000000 pixels"):
        load_picture(bomb, max_pixels=4_000_000)
    assert (made, Image.MAX_IMAGE_PIXELS) == ([], usual)
    with pytest.raises(InputError):
        load_picture(bomb, max_pixels=150_000_000)
    assert set(made) == {(12000, 12000)}  # as Pillow does it; where it no longer does, this function has no reason
