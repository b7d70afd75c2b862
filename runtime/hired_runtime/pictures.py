"""Loads a picture: a file, its bytes or a PIL picture -> an upright RGB picture.

Equal to the last bit to `transformers.image_utils.load_image` with the same Pillow: EXIF orientation first, then
Pillow's own conversion to RGB (which drops alpha and takes the first frame). Unlike it, nothing is fetched from the
network, only raster formats are tried, and the size in the header is checked before a pixel is decoded.

Knows nothing of models, tiles or budgets.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from PIL import Image, ImageOps, UnidentifiedImageError

from hired_edge.errors import InputError


@dataclass(frozen=True, eq=False)
class KnownPicture:
    """A picture whose contents were read once and are known by their digest (`read_picture`).

    Args:
        source: the bytes of a file, or an upright RGB picture.
        digest: SHA-256 of what it shows.
        name: for messages.
    """

    source: bytes | Image.Image
    digest: bytes
    name: str


PictureSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | KnownPicture"

#: 100 megapixels: 400 MB once decoded (Pillow keeps four bytes a pixel).
MAX_PIXELS = 100_000_000

#: JPEG's own limit. A picture of 1x100000000 is small, but what Pillow makes of it while resizing is not.
MAX_SIDE = 65_535

# Raster formats only: Pillow's EPS reader, for one, would start Ghostscript on the file.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000")
_EXPECTED = "a picture file (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or JPEG 2000)"

# What Pillow's readers raise on damaged data, beside OSError (RuntimeError: AVIF; AssertionError: a palette's mode
# without a palette).
_DAMAGE = (
    AssertionError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
)

_pillow_lock = threading.Lock()


def load_picture(source: PictureSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Loads one picture, upright and in RGB.

    Args:
        source: a path, the bytes of a file, or a PIL picture of any mode (it is left unchanged); or what `read_picture`
            made of one.
        max_pixels: refuse a picture whose header promises more (or a side over `MAX_SIDE`). Pillow's own limit, twice
            `PIL.Image.MAX_IMAGE_PIXELS`, holds as well.

    Returns:
        A new RGB picture that holds no file open.

    Raises:
        InputError: the source is not there, not readable, not a whole picture, or too large.
    """
    if isinstance(source, KnownPicture):
        if isinstance(source.source, Image.Image):
            return source.source
        return _decode(io.BytesIO(source.source), source.name, max_pixels)
    if isinstance(source, Image.Image):
        _check_size(source.size, "the picture", max_pixels)
        with _damage_reported("the picture"):
            return _to_rgb(ImageOps.exif_transpose(source))
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), _name_of_data(source), max_pixels)
    if isinstance(source, (str, os.PathLike)):
        name = _short(os.fspath(source))
        with _open_file(source, name) as file:
            return _decode(file, name, max_pixels)
    raise InputError(
        f"a picture of type {type(source).__name__}",
        expected="a path, the bytes of a picture file, or a PIL picture",
        fix="for an array, pass PIL.Image.fromarray(array)",
    )


def read_picture(source: PictureSource) -> KnownPicture:
    """Reads a picture's contents, without decoding a file's.

    Raises:
        InputError: the source is not there or not readable; a PIL picture that is too large.
    """
    if isinstance(source, KnownPicture):
        return source
    if isinstance(source, (str, os.PathLike)):
        name = _short(os.fspath(source))
        with _open_file(source, name) as file, _damage_reported(name):
            data = file.read()
    elif isinstance(source, bytes):
        name, data = _name_of_data(source), source
    else:
        picture = load_picture(source)  # also refuses what is no picture
        digest = hashlib.sha256(f"RGB {picture.width}x{picture.height} ".encode() + picture.tobytes()).digest()
        return KnownPicture(picture, digest, "the picture")
    return KnownPicture(data, hashlib.sha256(data).digest(), name)


def _name_of_data(data: bytes) -> str:
    if not data:
        raise InputError(
            "the picture's data is empty (0 bytes)", expected=_EXPECTED, fix="pass the file's whole contents"
        )
    return f"the picture's data ({len(data)} bytes)"


def _open_file(source: str | os.PathLike[str], name: str) -> BinaryIO:
    """Opens a non-empty regular file for reading."""
    if os.fspath(source).lower().startswith(("http://", "https://", "data:")):
        raise InputError(
            f"the address {name}", expected="a file on this machine", fix="download the picture first and pass its path"
        )
    try:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name} is a directory", expected=_EXPECTED, fix="pass one file inside it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(
                f"{name} is not a regular file", expected=_EXPECTED, fix="save the picture to a file first"
            )
        if status.st_size == 0:
            raise InputError(
                f"{name} is empty (0 bytes)", expected=_EXPECTED, fix="copy the file again or pass another"
            )
        return Path(source).open("rb")
    except FileNotFoundError:
        raise InputError(f"{name} does not exist", expected=_EXPECTED, fix="check the path") from None
    except PermissionError:
        raise InputError(
            f"{name} may not be read",
            expected="a file this user may read",
            fix="check the permissions of the file and its folders",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise InputError(
            f"{name} cannot be opened ({_reason(error)})", expected=_EXPECTED, fix="check the path"
        ) from None


@contextmanager
def picture_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """What a picture file says about itself (`format`, `size`, `is_animated`): not a pixel is decoded.

    Raises:
        InputError: no picture, a damaged header, or more pixels than `max_pixels`.
    """
    name = f"the picture's data ({len(data)} bytes)"
    with _damage_reported(name), _open_header(io.BytesIO(data), name, max_pixels) as picture:
        _check_size(picture.size, name, max_pixels)
        yield picture


def _decode(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    with _damage_reported(name), _open_header(file, name, max_pixels) as picture:
        _check_size(picture.size, name, max_pixels)
        ImageOps.exif_transpose(picture, in_place=True)
        return _to_rgb(picture)


def _open_header(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    """Reads the header alone: Pillow decodes on first use."""
    # Pillow warns from 89 megapixels on; the check against `max_pixels` says it better. Warning filters and
    # limits are shared by all threads, hence the lock.
    with _pillow_lock, warnings.catch_warnings(), _gif_bounded(file, max_pixels):
        warnings.simplefilter("ignore")
        try:
            return Image.open(file, formats=_readable_formats())
        except UnidentifiedImageError:
            raise InputError(
                f"{name} is not a picture that can be read", expected=_EXPECTED, fix="convert it to PNG or JPEG"
            ) from None
        except Image.DecompressionBombError as error:
            raise InputError(
                f"{name} is too large ({_reason(error)})",
                expected=f"at most {min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))} pixels",
                fix="scale the picture down first",
            ) from None


@contextmanager
def _gif_bounded(file: BinaryIO, max_pixels: int) -> Iterator[None]:
    """Of a GIF, Pillow makes what its first frame leaves behind while it reads the header: 170 MB for a file of a
    hundred bytes. Only Pillow's own limit comes before that."""
    usual, gif = Image.MAX_IMAGE_PIXELS, file.read(4) == b"GIF8"
    file.seek(0)
    if gif:
        Image.MAX_IMAGE_PIXELS = min(usual or max_pixels, -(-max_pixels // 2))  # an error from twice that on
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _readable_formats() -> tuple[str, ...]:
    """`_FORMATS`, and AVIF where this Pillow knows it (an unknown name would be a KeyError)."""
    return (*_FORMATS, "AVIF") if importlib.util.find_spec("PIL.AvifImagePlugin") else _FORMATS


def _to_rgb(picture: Image.Image) -> Image.Image:
    # The conversion drops a palette's transparency in any case, but it warns about this kind.
    if isinstance(picture.info.get("transparency"), bytes):
        del picture.info["transparency"]
    return picture.convert("RGB")


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InputError(
            f"{name} is {width}x{height} pixels", expected="at least 1x1 pixel", fix="pass another picture"
        )
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise InputError(
            f"{name} is {width}x{height} pixels ({width * height} in all)",
            expected=f"at most {max_pixels} pixels and {MAX_SIDE} a side",
            fix="scale the picture down first",
        )


@contextmanager
def _damage_reported(name: str) -> Iterator[None]:
    """Turns what Pillow raises on a damaged file into one InputError."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} is too large ({_reason(error)})", expected=_EXPECTED, fix="scale the picture down first"
        ) from None
    except (OSError, *_DAMAGE) as error:
        raise InputError(
            f"{name} is truncated or damaged ({_reason(error)})",
            expected="a whole picture file",
            fix="copy the file again or pass another",
        ) from None


def _reason(error: Exception) -> str:
    """An exception's text, without the path that a system error repeats."""
    return _printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)[:100].rstrip(".")


def _short(path: str, limit: int = 100) -> str:
    """A path for a message: the end where it is long, since the file's name is there."""
    printable = _printable(path) or "the empty path"
    return printable if len(printable) <= limit else f"...{printable[-limit:]}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
