"""A folder that appears whole or not at all, and outlives the power going once it is there. Knows not what is in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hired_edge.durable import rename, synchronise_tree
from hired_edge.errors import InputError


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """`.NAME.unpacking` beside `out` to write into; at the end it becomes `out`. If anything is raised, it goes.

    What a process that was killed has left of that name is removed. While another is at work in it, it is refused where
    the file system knows locks.

    Raises:
        InputError: `out` is there, or another process is making it.
        OSError: it cannot be made.
    """
    _refuse_existing(out)
    partial = out.with_name(f".{out.name}.unpacking")
    handle = _locked(partial, out)
    try:
        _empty(partial)
        yield partial
        synchronise_tree(partial)
        _refuse_existing(out)
        rename(partial, out)
    finally:
        if _is(partial, handle):
            shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def _locked(partial: Path, out: Path) -> int:
    """The folder, made and locked (flock on itself, which ends with the process)."""
    while True:
        with contextlib.suppress(FileExistsError):
            partial.mkdir(mode=0o755)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"another process is making {out}", expected="one at a time", fix="wait for it, or name another OUT"
            ) from None
        except OSError:  # a file system without locks
            _check_own(partial, handle)
            return handle
        if _is(partial, handle):
            _check_own(partial, handle)
            return handle
        os.close(handle)  # it has become `out`, or was removed, meanwhile


def _check_own(partial: Path, handle: int) -> None:
    """In a folder like /tmp, somebody else may have made it, and could change what is written there."""
    if os.fstat(handle).st_uid != os.geteuid():
        os.close(handle)
        raise InputError(f"{partial} is somebody else's", expected="that name to be free", fix="name another OUT")


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):  # a link to nowhere as well
        raise InputError(f"{out} exists", expected="a folder to be made", fix="remove it, or name another OUT")
