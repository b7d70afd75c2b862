"""A profile's files: `profile.json` for programs, `profile.html` for people; each whole or not at all."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from hired_edge import strict
from hired_edge.errors import InputError, MissingExtraError
from hired_runtime.evaluation.files import write_whole
from hired_runtime.profiling.page import page
from hired_runtime.profiling.schema import Profile

JSON, PAGE = "profile.json", "profile.html"
_OPTION = "-o"


def check_folder(folder: Path) -> None:
    """Raises InputError if a report could not be written into `folder` in the end. Makes nothing."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{folder} cannot be written to", expected="a folder for the report", fix=f"pass another {_OPTION}"
        )


def write(profile: Profile, folder: Path) -> bool:
    """Writes both files, or the JSON alone where matplotlib is not installed; returns whether the page was written.

    A page of an earlier profile does not stay beside the JSON of this one.

    Raises:
        InputError: a file cannot be written.
    """
    drawn = page(profile).encode() if find_spec("matplotlib") is not None else None
    _make(folder)
    write_whole(folder / JSON, strict.dumps(profile).encode(), _OPTION)
    try:
        (folder / PAGE).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder / PAGE, error) from None
    if drawn is None:
        return False
    write_whole(folder / PAGE, drawn, _OPTION)
    return True


def render(profile: Profile, folder: Path) -> Path:
    """Writes the page alone, and returns its path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError(
            "no module named matplotlib", expected="the 'eval' extra", fix="run: pip install 'hired-edge[eval]'"
        )
    drawn = page(profile).encode()
    _make(folder)
    write_whole(folder / PAGE, drawn, _OPTION)
    return folder / PAGE


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be written ({error.strerror})", expected="a writable path", fix=f"pass another {_OPTION}"
    )
