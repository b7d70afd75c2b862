"""Writes a report's files: each whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hired_edge.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Beside `path` first, then renamed: never half a file, and none in the place of a whole one.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror})", expected="a writable path", fix="pass another --report"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
