"""May a folder be replaced by what a demo's command writes? Only where that command, or nothing, was there before."""

from __future__ import annotations

from pathlib import Path

from hired_edge.errors import InputError


def check_replaceable(folder: Path, mark: str) -> None:
    """Before any work: a folder is replaced only if it is absent, empty, or holds the file `mark`.

    Raises:
        InputError: it holds something else, or is a file.
    """
    if folder.exists() and not (folder / mark).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"{folder} holds something that was not made here",
            expected=f"a new folder, an empty one, or one with {mark}",
            fix="pass another --out",
        )
