"""`OUT.partial/`: a bundle is written in it, then renamed to OUT in one step; or removed, or kept to go on from.

    OUT.partial/lock      held (flock) while the export lives; a lock that nobody holds was left by one that was killed
    OUT.partial/journal   which tensors of the bundle are whole (`journal.py`)
    OUT.partial/bundle/   becomes OUT

A folder of that name without such a lock is somebody else's, and is left alone. But an empty one, which a kill may
leave in the first and the last moment, goes: there is nothing of anybody in it.

What is kept, and why. An export that fails by itself (no room, weights that cannot be had, a failed check) removes
everything: going on would fail again, or fill a disk that is full. One that was stopped from outside, by Ctrl-C or by
the system (a kill, the power, the parity check's process out of memory), keeps its whole tensors, which may be an
hour's work: a bundle is what OUT is, and OUT.partial is none by its name, its lock and its journal. Ctrl-C says so in
its one line, with both ways out; where no tensor is whole yet, it leaves nothing. The same command goes on; another one
to the same OUT begins anew in its place.
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
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from hired_edge.durable import rename, synchronise_tree
from hired_edge.errors import ExportError, InputError
from hired_export.journal import Journal

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCK, JOURNAL, BUNDLE = "lock", "journal", "bundle"
MARK = b"hired-edge export is making a bundle here\n"
"""What a lock holds. It is written by the lock's holder, so a file with it is locked or was left behind."""
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)
"""How a path refuses to be opened that is no file: nothing, a folder, a link, a socket."""


class StoppedError(ExportError):
    """The export was stopped by something that may not be there the next time: what is whole is kept."""


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
    with _one_line_errors(out, needed), _own_folder(out) as own:
        refuse_existing(out)  # another export may just have ended
        _check_room(out, needed, needed)
        bundle = own.path / BUNDLE
        _empty(bundle)
        yield bundle
        _put_in_place(bundle, out)


@contextlib.contextmanager
def resumable_folder(out: Path, needed: int, about: str) -> Iterator[tuple[Path, Journal]]:
    """As `partial_folder`, with a journal; the files that it names are those of a stopped export.

    Args:
        about: what is being exported (`identity.py`): of anything else nothing is kept.

    Raises:
        KeyboardInterrupt: as it came; where something is kept, it says what.
    """
    with _one_line_errors(out, needed), _own_folder(out) as own:
        refuse_existing(out)
        bundle = own.path / BUNDLE
        with Journal(own.path / JOURNAL, about) as journal:
            _empty(bundle, journal.files)
            _check_room(out, needed - _bytes(bundle), needed)
            try:
                yield bundle, journal
            except (KeyboardInterrupt, StoppedError) as stop:
                own.kept = bool(journal.files)
                if own.kept and isinstance(stop, KeyboardInterrupt):
                    raise KeyboardInterrupt(
                        f"{own.path} keeps {journal.bytes / 2**20:.0f} MiB: the same command goes on from there; "
                        f"to give up, remove it"
                    ) from None
                raise
            _put_in_place(bundle, out)


def _put_in_place(bundle: Path, out: Path) -> None:
    """All of it is on the disk before OUT is there: a bundle after the power went is whole, or is none."""
    try:
        synchronise_tree(bundle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from None
    rename(bundle, out)


@dataclass
class _Own:
    """OUT.partial, and whether it is to outlive this export."""

    path: Path
    kept: bool = False


@contextlib.contextmanager
def _one_line_errors(out: Path, needed: int) -> Iterator[None]:
    refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield
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
def _own_folder(out: Path) -> Iterator[_Own]:
    """OUT.partial, made or taken over from a stopped export; removed in the end, unless it is to be kept."""
    partial = out.with_name(out.name + ".partial")
    own = _Own(partial)
    with contextlib.ExitStack() as stack:
        with _interrupts_delayed():  # until it is known what is to be removed
            _remove_unmarked(partial)
            try:
                partial.mkdir()
            except FileExistsError:
                lock = _left_lock(partial, out)
            else:
                lock = _new_lock(partial, out)
            stack.enter_context(lock)
            stack.callback(_remove, own)  # before the lock is let go
        yield own


def _empty(folder: Path, kept: Collection[str] = ()) -> None:
    """Makes the folder, or removes all but some files of it, given by their POSIX paths. No link is followed."""
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(exist_ok=True)
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = Path(parent, name)
            if path.is_symlink() or not path.is_dir():
                if path.relative_to(folder).as_posix() not in kept or path.is_symlink():
                    path.unlink()
            elif not os.listdir(path):
                path.rmdir()


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_room(out: Path, missing: int, needed: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if free < missing:
        raise _no_room(out, f"{free / 2**20:.0f} MiB free", needed)


def _new_lock(partial: Path, out: Path) -> FileIO:
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(_remove, _Own(partial))
        try:
            lock = on_failure.enter_context(open(partial / LOCK, "xb", buffering=0))
        except FileNotFoundError:  # another one that begins has taken the folder for left behind
            raise _busy(out) from None
        _lock(lock, out)
        lock.write(MARK)
        on_failure.pop_all()
    return lock


def _remove_unmarked(partial: Path) -> None:
    """An OUT.partial whose export was killed before its lock had its mark, or once that was gone: nothing is in it."""
    with contextlib.suppress(OSError):
        if not partial.is_symlink() and os.listdir(partial) == [LOCK]:
            with open(partial / LOCK, "rb", buffering=0, opener=_open_left) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                content = lock.read(len(MARK))
                if content != MARK and MARK.startswith(content):
                    (partial / LOCK).unlink()
        partial.rmdir()


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
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(out) from None
    except OSError as error:  # a file system without locks
        raise OSError(error.errno, error.strerror, lock.name) from None
    if os.fstat(lock.fileno()).st_nlink == 0:  # it ended, and removed its lock, since this one was opened
        raise _busy(out)


def _busy(out: Path) -> InputError:
    return InputError(
        f"another export to {out} is running", expected="one at a time", fix="wait for it, or name another OUT"
    )


def _remove(own: _Own) -> None:
    """Removes what an export made; if anything else is there, that stays, and the lock with it."""
    if own.kept:
        return
    with _interrupts_delayed(), contextlib.suppress(OSError):
        shutil.rmtree(own.path / BUNDLE, ignore_errors=True)
        (own.path / JOURNAL).unlink(missing_ok=True)
        if set(os.listdir(own.path)) <= {LOCK}:
            (own.path / LOCK).unlink(missing_ok=True)
            own.path.rmdir()


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


def refuse_existing(out: Path) -> None:
    """Raises InputError if OUT is there; what is left of an export that was killed once it had made OUT goes then."""
    if os.path.lexists(out):  # a link to nowhere as well
        partial = Path(f"{os.path.abspath(out)}.partial")  # OUT may be "."
        _remove_unmarked(partial)
        with contextlib.suppress(OSError, InputError):
            if not os.path.lexists(partial / BUNDLE):
                with _left_lock(partial, out):
                    _remove(_Own(partial))
        raise InputError(f"{out} exists", expected="a folder to be made", fix="remove it, or name another OUT")


def _no_room(out: Path, got: str, needed: int) -> ExportError:
    return ExportError(
        got, expected=f"about {needed / 2**20:.0f} MiB for {out}", fix="free some space and export again"
    )
