"""Names of files inside a bundle: relative POSIX paths that cannot leave it, on any system. Touches no disk."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from hired_edge.errors import BundleError
from hired_edge.strict import MEND, show

# Parts begin with a letter, a digit or "_": that alone rules out "..", "", hidden files and options.
_PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
MAX_NAME = 255
"""Characters of a whole name: a thousand folders in folders are more than Python walks through."""


def check_file_name(name: str) -> str:
    """Return `name` if it is a relative POSIX path that stays below its folder.

    Raises:
        BundleError: it is absolute, has "..", a backslash or an empty part, is hidden, too long, or is not of A-Z a-z
            0-9 . _ + -
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise BundleError(
            f"the file name {show(name)} is not allowed",
            expected=f'a relative path such as "language/model.onnx", of at most {MAX_NAME} characters',
            fix=MEND,
        )
    return name


def beside(file: str, location: str) -> str:
    """The bundle's name for `location`, which `file` gives relative to its own folder.

    Raises:
        BundleError: `location` could leave that folder.
    """
    return str(PurePosixPath(file).parent / check_file_name(location))


def signature_name(name: str) -> str:
    """Of the file beside `name` that holds its signature."""
    return f"{name}.sig"
