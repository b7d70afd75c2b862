"""Pictures that a client sends or points at -> the bytes of a picture file that is worth decoding.

Nothing is fetched from a network, and no pixel is decoded: what the header says is checked here, what the rest holds
is the decoder's business (`hired_runtime.pictures`).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from hired_runtime.pictures import MAX_PIXELS, picture_header
from hired_runtime.serving.api_errors import ApiError, about
from hired_runtime.serving.picture_structure import check_structure

#: The formats that OpenAI's API takes. Fewer than `load_picture` reads, since strangers choose what is parsed here.
FORMATS = "PNG, JPEG, WebP or GIF"

_SIGNATURES = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL)
_ANIMATED = ("GIF", "PNG", "WEBP")  # a JPEG of several pictures (MPO) is what some phones and cameras write
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]+(;[^;,]*)*;base64", re.IGNORECASE)
_HEADER_CHARACTERS = 200
_PATH_CHARACTERS = 4096  # the system takes no longer path, and resolving one takes the square of its length
_EMBED = "send the picture itself, as data:image/png;base64,..."


@dataclass(frozen=True)
class MediaLimits:
    """What pictures may be.

    Args:
        max_picture_bytes: of a file.
        max_pixels: of all pictures of a request together, by their headers.
        allowed_media_path: the folder below which a client may name files; None = nowhere.
    """

    max_picture_bytes: int = 20 * 2**20
    max_pixels: int = MAX_PIXELS // 2
    allowed_media_path: Path | None = None


class Checked(NamedTuple):
    """The bytes of a still picture's file, and the pixels that its header promises."""

    data: bytes
    pixels: int


def checked_picture(data: bytes, limits: MediaLimits, param: str) -> Checked:
    """The bytes themselves, if they begin a still picture within the limits.

    Raises:
        ApiError: 400, about `param`.
    """
    if not data:
        raise _refused(param, "the picture is empty (0 bytes)", "the whole contents of a picture file")
    _check_bytes(len(data), limits, param)
    if not _SIGNATURES.match(data):
        raise _refused(param, f"the picture's data ({len(data)} bytes) is of no known format", FORMATS)
    with about(param):
        check_structure(data)
        with picture_header(data, max_pixels=limits.max_pixels) as picture:
            if picture.format in _ANIMATED and getattr(picture, "is_animated", False):
                raise _refused(param, f"an animated {picture.format} picture", "a still picture; send one frame of it")
            return Checked(data, picture.width * picture.height)


class RequestPictures:
    """The pictures of one request, as they are read: all are decoded before the first is looked at, so that their
    pixels share one limit.

    Attributes:
        read: the bytes of each picture's file, in order.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self._limits, self._pixels = limits, 0
        self.read: list[bytes] = []

    def add(self, url: str, param: str) -> None:
        """Raises ApiError: 400, about `param`."""
        data, pixels = picture_of_url(url, self._limits, param)
        self._pixels += pixels
        if self._pixels > self._limits.max_pixels:
            got = f"pictures of {self._pixels} pixels together"
            raise _refused(param, got, f"at most {self._limits.max_pixels} in a request; scale them down first")
        self.read.append(data)


def picture_of_url(url: str, limits: MediaLimits, param: str) -> Checked:
    """The picture that an `image_url` holds or names, checked: a data URI, or a file below the allowed folder.

    Raises:
        ApiError: 400, about `param`.
    """
    scheme = _SCHEME.match(url)
    name = scheme[1].lower() if scheme else "file"
    if name == "data":
        return checked_picture(_embedded(url, limits, param), limits, param)
    if name in ("http", "https"):
        raise _refused(param, "an address on the network", "a picture in the request: nothing is fetched; " + _EMBED)
    if name == "file":
        return checked_picture(_local(url, limits, param), limits, param)
    raise _refused(param, f"an address of the kind {name[:20]}:", "a data: URI; " + _EMBED)


def _embedded(url: str, limits: MediaLimits, param: str) -> bytes:
    comma = url.find(",", 0, _HEADER_CHARACTERS)
    if comma < 0 or not _IMAGE_TYPE.fullmatch(url[len("data:") : comma]):
        raise _refused(param, "a data URI that is no picture in base64", "data:image/png;base64,...")
    start = comma + 1
    _check_bytes((len(url) - start) // 4 * 3 - 2, limits, param)  # before it is decoded; padding is 2 at most
    try:
        return base64.b64decode(url[start:].encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise _refused(
            param, "a data URI whose base64 is broken", "base64 on one line, padded with = (`base64 -w0` writes it)"
        ) from None


def _local(url: str, limits: MediaLimits, param: str) -> bytes:
    """A file's bytes. Links and `..` are resolved before it is decided whether the file may be read."""
    root = limits.allowed_media_path
    if root is None:
        raise _refused(
            param,
            f"the file {_shown(url)}",
            f"no local files, since the server runs without --allowed-media-path; {_EMBED}",
        )
    if len(url) > _PATH_CHARACTERS:
        raise _refused(param, f"a file's address of {len(url)} characters", f"at most {_PATH_CHARACTERS}")
    outside = _refused(param, f"the file {_shown(url)}", "a file below the folder that --allowed-media-path names")
    missing = _refused(param, f"the file {_shown(url)} cannot be read", "a regular file that the server may read")
    try:
        root = root.resolve()
        path = (root / _path(url)).resolve()
    except (OSError, RuntimeError, ValueError):  # a ring of links, a null character, half a character
        raise outside from None
    if not path.is_relative_to(root):
        raise outside
    try:
        # no link that has come since, and no waiting for a pipe's other end
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise missing
            _check_bytes(status.st_size, limits, param)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limits.max_picture_bytes + 1)  # it may be growing
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        raise missing from None


def _path(url: str) -> str:
    if not _SCHEME.match(url):
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ValueError(url)
    return unquote(parts.path, errors="strict")


def _check_bytes(count: int, limits: MediaLimits, param: str) -> None:
    if count > limits.max_picture_bytes:
        raise _refused(param, f"a picture of {count} bytes", f"at most {limits.max_picture_bytes}")


def _shown(url: str) -> str:
    """As the client wrote it, and short."""
    return ascii(url if len(url) <= 100 else f"{url[:97]}...")


def _refused(param: str, got: str, expected: str) -> ApiError:
    return ApiError(400, f"{got}; expected {expected}", param=param, code="invalid_image")
