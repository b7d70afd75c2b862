"""Writing files whole or not at all. Knows nothing of what is in them, nor how a failure is to be told.

What a process that was killed has left beside a file is removed when the file is written again: a lock (flock) says
that somebody is still at it, where the file system knows locks, and the number in its name who that is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hired_edge.durable import synchronise


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; at the end it takes its place for good. If anything is raised, `path` stays.

    Raises:
        OSError: it cannot be made, or is not on the disk.
    """
    with _beside(path, path.stem) as partial:
        yield partial
        synchronise(partial)
        partial.replace(path)
        synchronise(path.parent)


@contextlib.contextmanager
def all_whole(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As `whole`, of several files of a folder: the first takes its place when all are on the disk.

    So a full disk changes none of them, and of two processes that write them one waits for the other. A kill between
    two of the renames leaves some replaced and others not.
    """
    with contextlib.ExitStack() as stack:
        partials = [stack.enter_context(_beside(path, path.name)) for path in paths]
        yield partials
        for partial in partials:
            synchronise(partial)
        with _folder_locked(paths[0].parent):
            for partial, path in zip(partials, paths, strict=True):
                partial.replace(path)
            synchronise(paths[0].parent)


@contextlib.contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _beside(path: Path, name: str) -> Iterator[Path]:
    """`.NAME.PID.partial`, empty and locked; what is left of it in the end is removed."""
    _clean(path.parent, name)
    partial = path.parent / f".{name[:40]}.{os.getpid()}.partial"
    handle = _locked(partial)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
        os.close(handle)


def _locked(partial: Path) -> int:
    while True:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            return handle
        if _is(partial, handle):
            return handle
        os.close(handle)  # another process took it for left behind, before it was locked


def _clean(folder: Path, name: str) -> None:
    """Removes what processes that have ended left of a file. What cannot be removed stays."""
    left = re.compile(rf"\.{re.escape(name[:40])}\.([0-9]+)\.partial")
    with contextlib.suppress(OSError):
        for entry in os.listdir(folder):
            match = left.fullmatch(entry)
            if match is not None and not _runs(int(match[1])):
                _remove(folder / entry)


def _runs(pid: int) -> bool:
    """Whether there is such a process here; the lock tells of one elsewhere."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0


def _remove(partial: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(partial, handle):
                partial.unlink()
        finally:
            os.close(handle)


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False
