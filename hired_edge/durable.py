"""What is called complete outlives the power going: its bytes are on the disk before its name says that it is there.

Without this, a file system may keep a rename and lose what was written before it: a name with nothing behind it. The
cost is that of writing to the disk what would otherwise be written some seconds later. Knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""How some file systems answer that they cannot do it for a folder."""
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of renameat2(2)."""


def synchronise(path: Path) -> None:
    """Sees a file's bytes, or a folder's names, onto the disk.

    Raises:
        OSError: that failed (a full disk may show only here); it names no path.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def synchronise_tree(folder: Path) -> None:
    """As `synchronise`, of everything in a folder, and of itself. Links are left alone."""
    for parent, _, files in os.walk(folder):
        for path in (Path(parent, name) for name in files):
            if not path.is_symlink():
                synchronise(path)
        synchronise(Path(parent))


def rename(source: Path, target: Path) -> None:
    """Renames what was seen onto the disk; when this returns, the new name is there for good.

    Raises:
        OSError: as `Path.rename`.
    """
    source.rename(target)
    synchronise(target.parent)


def exchange(first: Path, second: Path) -> bool:
    """Lets two paths change places in one step, so that neither is ever missing.

    Returns:
        whether it was done: not every system and file system can.

    Raises:
        OSError: it can, and did not.
    """
    with contextlib.suppress(AttributeError):  # a C library without it
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        if renameat2(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
            return True
        number = ctypes.get_errno()
        if number not in _NO_EXCHANGE:
            raise OSError(number, os.strerror(number), str(second))
    return False
