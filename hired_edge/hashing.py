"""A file's size and sha256, read in chunks; and how a file that cannot be read is told of.

A caller may bring another way of hashing, and a check of signatures: their types are here. Knows no bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hired_edge.errors import BundleError
from hired_edge.manifest_parts import FileRecord
from hired_edge.strict import one_line

CHUNK = 2**20

OnBytes = Callable[[int], None]
"""Called with the number of bytes hashed since the last call."""
HashFile = Callable[[Path, "OnBytes | None"], FileRecord]
"""Gives a file's size and sha256, as `file_record` does."""
CheckDocument = Callable[[Path, bytes], None]
"""Called with the path of a manifest or record and its bytes, before they are parsed; raises BundleError where it is
not to be used. What checks signatures is one: the contract knows where they lie, and not what is in them."""


def file_record(path: Path, on_bytes: OnBytes | None = None) -> FileRecord:
    """A file's size and sha256.

    Raises:
        BundleError: the file cannot be read.
    """
    with readable(path), path.open("rb", buffering=0) as file:
        return stream_record(file, on_bytes)


def stream_record(file: BinaryIO, on_bytes: OnBytes | None = None) -> FileRecord:
    """Size and sha256 of what is left of an open file. Errors of the disk are left as `OSError`."""
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if on_bytes is not None:
            on_bytes(len(chunk))
    return FileRecord(size, digest.hexdigest())


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what reading `path` raises into a BundleError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise BundleError(
            f"{path} cannot be read ({reason})", expected="a readable bundle", fix="check its permissions and the disk"
        ) from None
