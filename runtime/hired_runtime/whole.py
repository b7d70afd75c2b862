"""Writing a file whole or not at all. Knows nothing of what is in it, nor how a failure is to be told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; at the end it takes its place. If anything is raised, `path` stays."""
    partial = path.parent / f".{path.stem[:40]}.{os.getpid()}.partial"
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
