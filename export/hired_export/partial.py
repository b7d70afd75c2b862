"""`OUT.partial/`: a bundle is written in it, then renamed to OUT in one step, or removed whatever went wrong.

    OUT.partial/lock      held (flock) while the export lives; a lock that nobody holds was left by one that was killed
    OUT.partial/bundle/   becomes OUT

A folder of that name without such a lock is somebody else's, and is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from hired_edge.errors import ExportError, InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCK, BUNDLE = "lock", "bundle"
MARK = b"hired-edge export is making a bundle here\n"
"""What a lock holds. It is written by the lock's holder, so a file with it is locked or was left behind."""
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)
"""How a path refuses to be opened that is no file: nothing, a folder, a link, a socket."""


@contextlib.contextmanager
def partial_folder(out: Path, needed: int) -> Iterator[Path]:
    """OUT.partial/bundle/, renamed to OUT where the block ends well; OUT.partial is removed in any case.

    Args:
        out: the folder to be made; its parents are made as well.
        needed: bytes that the block will write.

    Raises:
        InputError: OUT exists, another export to OUT is running, or OUT.partial is not an export's.
        ExportError: too little room, or a folder that may not be written to.
    """
    _refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _own_folder(out) as partial:
            _refuse_existing(out)  # another export may just have ended
            free = shutil.disk_usage(out.parent).free
            if free < needed:
                raise _no_room(out, f"{free / 2**20:.0f} MiB free", needed)
            bundle = partial / BUNDLE
            bundle.mkdir()
            yield bundle
            bundle.rename(out)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _no_room(out, f"the disk filled while writing ({error.strerror})", needed) from None
        if error.filename is None:
            raise
        raise ExportError(
            f"{error.filename} cannot be written ({error.strerror})",
            expected=f"a folder in which {out} can be made",
            fix="choose an OUT that you may write to",
        ) from None


@contextlib.contextmanager
def _own_folder(out: Path) -> Iterator[Path]:
    """OUT.partial, made or taken over from a killed export, with nothing but its lock inside; removed in the end."""
    partial = out.with_name(out.name + ".partial")
    with contextlib.ExitStack() as stack:
        with _interrupts_delayed():  # until it is known what is to be removed
            try:
                partial.mkdir()
            except FileExistsError:
                lock = _left_lock(partial, out)
            else:
                lock = _new_lock(partial, out)
            stack.enter_context(lock)
            stack.callback(_remove, partial)  # before the lock is let go
        if os.path.lexists(partial / BUNDLE):
            shutil.rmtree(partial / BUNDLE)  # a killed export's
        yield partial


def _new_lock(partial: Path, out: Path) -> FileIO:
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(_remove, partial)
        lock = on_failure.enter_context(open(partial / LOCK, "xb", buffering=0))
        _lock(lock, out)
        lock.write(MARK)
        on_failure.pop_all()
    return lock


def _left_lock(partial: Path, out: Path) -> FileIO:
    """The lock in an OUT.partial that was there before."""
    foreign = InputError(
        f"{partial} exists and was not made by hired-edge export",
        expected="that name to be free, since the bundle is made there",
        fix="move it away, or name another OUT",
    )
    if partial.is_symlink():
        raise foreign
    try:
        lock = open(partial / LOCK, "r+b", buffering=0, opener=_open_left)  # noqa: SIM115
    except OSError as error:
        if error.errno in NO_FILE:
            raise foreign from None
        raise
    with contextlib.ExitStack() as on_failure:
        on_failure.enter_context(lock)
        if not stat.S_ISREG(os.fstat(lock.fileno()).st_mode) or lock.read(len(MARK)) != MARK:
            raise foreign
        _lock(lock, out)
        on_failure.pop_all()
    return lock


def _open_left(path: str, flags: int) -> int:
    """Follows no link and waits for nobody at the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _lock(lock: FileIO, out: Path) -> None:
    """Locks the file until it is closed or this process ends, however it ends."""
    busy = InputError(
        f"another export to {out} is running", expected="one at a time", fix="wait for it, or name another OUT"
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError as error:  # a file system without locks
        raise OSError(error.errno, error.strerror, lock.name) from None
    if os.fstat(lock.fileno()).st_nlink == 0:  # it ended, and removed its lock, since this one was opened
        raise busy


def _remove(partial: Path) -> None:
    """Removes what an export made; if anything else is there, that stays, and the lock with it."""
    with _interrupts_delayed(), contextlib.suppress(OSError):
        shutil.rmtree(partial / BUNDLE, ignore_errors=True)
        if set(os.listdir(partial)) <= {LOCK}:
            (partial / LOCK).unlink(missing_ok=True)
            partial.rmdir()


@contextlib.contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Ctrl-C, however often it comes in the block, comes once after it."""
    if threading.current_thread() is not threading.main_thread():  # the only one that it comes to
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):  # a link to nowhere as well
        raise InputError(f"{out} exists", expected="a folder to be made", fix="remove it, or name another OUT")


def _no_room(out: Path, got: str, needed: int) -> ExportError:
    return ExportError(
        got, expected=f"about {needed / 2**20:.0f} MiB for {out}", fix="free some space and export again"
    )
