"""A report's files: what they are called, and how they are written (each whole or not at all) and thrown away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hired_edge.errors import InputError
from hired_runtime.whole import all_whole

JSON, MARKDOWN, PLOT = "report.json", "report.md", "accuracy.png"


def write_whole(path: Path, data: bytes, option: str = "--report") -> None:
    """Raises InputError where it cannot be written; what is there then stays. `option`: by which another is named."""
    write_together({path: data}, option)


def write_together(files: Mapping[Path, bytes], option: str = "--report") -> None:
    """As `write_whole`, of files of one folder: where one cannot be written, all stay as they are."""
    paths = list(files)
    path = paths[0]
    try:
        with all_whole(paths) as partials:
            for path, partial in zip(paths, partials, strict=True):
                partial.write_bytes(files[path])
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror})", expected="a writable path", fix=f"pass another {option}"
        ) from None


def remove_report(folder: Path) -> None:
    """Throws away the report in `folder`, as far as there is one.

    Raises:
        InputError: a file cannot be removed.
    """
    for name in (JSON, MARKDOWN, PLOT):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder / name} cannot be removed ({error.strerror})",
                expected="a folder whose report can be thrown away",
                fix="pass another --report",
            ) from None
