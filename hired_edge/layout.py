"""What may lie in a bundle beside the files that its manifest names. Everything else is refused.

    manifest.json, manifest.json.sig
    engines/FOLDER/   engine.json, engine.json.sig and the engines that this record names; FOLDER is its machine's

A build or a signing that was killed may leave `.NAME.PID.partial` or `.NAME.PID.old` in the places where it writes.
Nothing ever reads these, and the next build or signing removes them: they are passed over. This module reads names and
records, and neither hashes nor loads anything.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

from hired_edge.engine_check import read_record
from hired_edge.engine_record import RECORD_NAME, folder_name
from hired_edge.errors import BundleError
from hired_edge.filenames import signature_name
from hired_edge.hashing import readable
from hired_edge.manifest import ENGINES_FOLDER, MANIFEST_NAME
from hired_edge.strict import show

_OWN = (MANIFEST_NAME, signature_name(MANIFEST_NAME))
_OWN_OF_ENGINES = (RECORD_NAME, signature_name(RECORD_NAME))
_REWRITTEN = (Path(RECORD_NAME).stem, RECORD_NAME)
"""What a record, or its signature, is called while it is being replaced (hired_runtime.whole)."""
_LEFT = re.compile(r"\.(?P<name>[A-Za-z0-9_][A-Za-z0-9._+-]*)\.[0-9]+\.(?:partial|old)")


def portable_files(root: Path) -> Iterator[str]:
    """Everything under `root` that the export could have written, by its POSIX path: what a manifest has to name.

    Folders are walked, links are named; the manifest, its signature, what a signing left and `engines/` are left out.
    """
    for name in _below(root, root, without=ENGINES_FOLDER):
        if name not in _OWN and left_by(name) != MANIFEST_NAME:
            yield name


def check_portable(root: Path, files: Collection[str]) -> None:
    """Nothing lies outside `engines/` that the manifest does not name.

    Raises:
        BundleError: something does.
    """
    with readable(root):
        extra = sorted(set(portable_files(root)) - set(files))
    if extra:
        raise BundleError(
            f"{root} holds {_listed(extra)}, which its manifest does not name",
            expected="only the files that the export wrote",
            fix="remove them, or copy the bundle again",
        )


def check_engines(root: Path) -> None:
    """Nothing lies in `engines/` that no record names.

    Raises:
        BundleError: something does, or a record is unreadable.
    """
    with readable(root / ENGINES_FOLDER):
        extra = sorted(_unnamed(root))
    if extra:
        raise BundleError(
            f"{root} holds {_listed(extra)}, which no {RECORD_NAME} names",
            expected="only what hired-edge build wrote",
            fix=f"remove them, or every engine: {_clean_command(root)}",
        )


def engine_folders(root: Path) -> list[Path]:
    """The folders in `engines/` that a build put there, by name. Links, files and what was left are left out."""
    engines = root / ENGINES_FOLDER
    if engines.is_symlink() or not engines.is_dir():
        return []
    with readable(engines):
        found = [path for path in engines.iterdir() if left_by(path.name) is None]
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())


def left_by(name: str) -> str | None:
    """What `.NAME.PID.partial` or `.NAME.PID.old` was to become, or had been: NAME. None of any other name."""
    match = _LEFT.fullmatch(name)
    return None if match is None else match["name"]


def _unnamed(root: Path) -> Iterator[str]:
    engines = root / ENGINES_FOLDER
    if not os.path.lexists(engines):
        return
    folders = engine_folders(root)
    if engines.is_symlink() or not engines.is_dir():
        yield ENGINES_FOLDER
        return
    for path in engines.iterdir():
        if path not in folders and left_by(path.name) is None:
            yield path.relative_to(root).as_posix()
    for folder in folders:
        inside = [name for name in _below(folder, folder) if left_by(name) not in _REWRITTEN]
        named = _named_by(folder, root) if inside else set()
        yield from (f"{ENGINES_FOLDER}/{folder.name}/{name}" for name in inside if name not in named)


def _named_by(folder: Path, root: Path) -> set[str]:
    if not os.path.lexists(folder / RECORD_NAME):
        return set(_OWN_OF_ENGINES)
    try:
        record = read_record(folder, root)
    except BundleError as error:  # whatever machine it was built for, this one cannot build that folder again
        fix = f"remove {folder}, or every engine: {_clean_command(root)}"
        raise BundleError(error.got, expected=error.expected, fix=fix) from None
    if folder.name != folder_name(record.sm, record.module, record.version):  # nobody would ever look for them there
        return set()
    return {*_OWN_OF_ENGINES, *(engine.file for engine in record.engines)}


def _clean_command(root: Path) -> str:
    return f"hired-edge build {shlex.quote(str(root))} --clean"


def _below(root: Path, folder: Path, without: str | None = None) -> Iterator[str]:
    """Everything below `folder` that is not a real folder, by its POSIX path from `root`."""
    for parent, folders, files in os.walk(folder, onerror=_raise):
        if without is not None and Path(parent) == folder:
            folders[:] = [name for name in folders if name != without]
            files = [name for name in files if name != without]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        yield from ((Path(parent) / name).relative_to(root).as_posix() for name in files + links)
        folders[:] = [name for name in folders if name not in links]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(map(show, names[:3]))}{more}"


def _raise(error: OSError) -> NoReturn:
    raise error
