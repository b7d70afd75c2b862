"""`engines/` of a bundle while a build writes in it: one build at a time, and what a killed one left is gone first.

The lock is on the folder itself (flock), so it leaves no file and ends with the process. What is being made is called
`.FOLDER.PID.partial` (hired_edge.layout passes it over), and changes places with what it replaces. Where a file system
cannot do that, the old is called `.FOLDER.PID.old` meanwhile, and is put back if the build is killed then. Knows
nothing of engines.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hired_edge.durable import exchange, synchronise, synchronise_tree
from hired_edge.errors import BundleError, InputError
from hired_edge.layout import left_by
from hired_edge.manifest import ENGINES_FOLDER


@contextmanager
def locked(bundle: Path) -> Iterator[None]:
    """No other build writes into the bundle meanwhile; an `engines/` that stays empty goes again.

    Where the file system knows no locks, nothing is locked, and nothing that was left is removed.

    Raises:
        InputError: another build is running.
        BundleError: the folder cannot be written.
    """
    engines = bundle / ENGINES_FOLDER
    if engines.is_symlink() or (engines.exists() and not engines.is_dir()):  # refused, or removed by --clean
        yield
        return
    with written(engines):
        handle = _lock(engines, bundle)
    try:
        yield
    finally:
        with suppress(OSError):
            engines.rmdir()
        if handle is not None:
            os.close(handle)


@contextmanager
def put_in_place(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place at the end; if anything is raised, it goes and `folder` stays.

    In one step, where the file system can exchange two names: whoever looks finds either of them, whole.
    """
    made = not folder.parent.exists()
    partial, old = (folder.parent / f".{folder.name}.{os.getpid()}.{word}" for word in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        synchronise_tree(partial)
        if os.path.lexists(folder) and not exchange(partial, folder):  # a file or a link too
            folder.rename(old)
        if not os.path.lexists(folder):
            partial.rename(folder)
        synchronise(folder.parent)
        synchronise(folder.parent.parent)
    finally:
        if os.path.lexists(old) and not os.path.lexists(folder):
            old.rename(folder)
        for each in (partial, old):
            with suppress(OSError):
                remove(each)
        if made and not any(folder.parent.glob("*")):
            shutil.rmtree(folder.parent, ignore_errors=True)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Turns an error of the disk into a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"{error.filename or folder} cannot be written ({error.strerror or error})",
            expected="room and the right to write there",
            fix="free some space, or check its permissions",
        ) from None


def remove(path: Path) -> None:
    """A folder with all that is in it, a file, a link itself, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(engines: Path, bundle: Path) -> int | None:
    """The folder, made and locked; None where that cannot be. Close it to let go."""
    while True:
        engines.mkdir(exist_ok=True)
        handle = os.open(engines, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"another build is writing into {bundle}", expected="one at a time", fix="wait until it has ended"
            ) from None
        except OSError:
            os.close(handle)
            return None
        if _is(engines, handle):
            _clean(engines)
            return handle
        os.close(handle)  # one that ended meanwhile has removed it


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _clean(engines: Path) -> None:
    """Removes what builds that were killed have left. Call it with the lock."""
    for path in sorted(engines.iterdir()):
        name = left_by(path.name)
        if name is None:
            continue
        if path.suffix == ".old" and not os.path.lexists(engines / name):
            path.rename(engines / name)
        else:
            remove(path)
