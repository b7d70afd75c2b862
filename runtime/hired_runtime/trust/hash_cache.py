"""sha256 of files that were hashed before and have not changed since: a second start does not read gigabytes again.

A file is known by its device, inode, size, and times of modification and of change (mtime, ctime; nanoseconds). Any
program may set the mtime, none the ctime: the kernel sets it at every write, rename and change of rights. So a file
whose mtime was put back is hashed again. Of a mapped file it is set at the first write to a page, and not again before
that page is on the disk: so a file is put there before it is hashed. What is not held off: a clock that is set back, a
disk that is written to directly, a write that hangs in its middle while the file is hashed, a power cut that keeps
what was written a moment before and loses its ctime, and whoever may write to this cache, which is the user alone.

Not kept are hashes of files that changed less than two seconds before (another write could leave the same times), and
of files on file systems whose ctime is not known to be kept so. The cache is used only if it is the user's own and
nobody else may write to it; a damaged one counts as empty; a lost one costs one more reading.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from hired_edge.hashing import HashFile, OnBytes, readable, stream_record
from hired_edge.manifest import FileRecord
from hired_runtime.user_cache import cache_folder
from hired_runtime.whole import whole

FILE_NAME = "hashes.json"
VERSION = 1
MOST_ENTRIES = 1024
MAX_BYTES = 2**19
"""An entry takes at most 180 bytes."""
RACY_NS = 2 * 10**9
KEEPS_CTIME = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # xfs
    0x9123683E,  # btrfs
    0xF2F52010,  # f2fs
    0x2FC12FC1,  # zfs
    0x794C7630,  # overlayfs: that of the file system below
}
"""statfs(2): f_type. FAT has no ctime, a network's may be minutes old here, and tmpfs does not see mapped writes."""

Key: TypeAlias = "tuple[int, int, int, int, int]"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@contextlib.contextmanager
def cached_hashes() -> Iterator[HashFile]:
    """What hashes files and remembers; at the end, whatever happens, what is new is written to the user's cache."""
    try:
        path = cache_folder() / FILE_NAME
    except RuntimeError:  # a user without a home
        path = None
    cache = HashCache(path)
    try:
        yield cache.hash_file
    finally:
        cache.save()


class HashCache:
    """The cache in one file.

    Args:
        path: of the file; None = nothing is known and nothing is kept.
        reads: whether what is known is believed; if not, every file is hashed and then known.
        now: the time in nanoseconds.
        keeps_ctime: whether an open file's ctime can be relied on.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        reads: bool = True,
        now: Callable[[], int] = time.time_ns,
        keeps_ctime: Callable[[int], bool] | None = None,
    ) -> None:
        self._path, self._now, self._keeps_ctime = path, now, keeps_ctime or _keeps_ctime
        self._known = _load(path) if path is not None and reads else {}
        self._new: dict[Key, str] = {}

    def hash_file(self, path: Path, on_bytes: OnBytes | None = None) -> FileRecord:
        """Size and sha256 of a file, read only if it is not known. A `hired_edge.hashing.HashFile`.

        Raises:
            BundleError: it cannot be read.
        """
        with readable(path), path.open("rb", buffering=0) as file:
            handle, started = file.fileno(), self._now()
            key = _key(os.fstat(handle))
            known = self._known.get(key)
            if known is not None:
                if on_bytes is not None:
                    on_bytes(key[2])
                return FileRecord(key[2], known)
            settled = started - key[4] > RACY_NS  # a time to come is none
            kept = settled and self._keeps_ctime(handle) and _is_on_disk(handle)
            record = stream_record(file, on_bytes)
            if kept and key == _key(os.fstat(handle)):
                self._known[key] = self._new[key] = record.sha256
            return record

    def save(self) -> None:
        """Adds what is new to the file; other processes' entries stay, the oldest go. Never raises."""
        if self._path is None or not self._new:
            return
        entries = {key: digest for key, digest in _load(self._path).items() if key not in self._new} | self._new
        kept = list(entries.items())[-MOST_ENTRIES:]
        content = {"version": VERSION, "entries": [[*key, digest] for key, digest in kept]}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with whole(self._path) as partial:
                partial.chmod(0o600)  # one that others may write to is not believed
                partial.write_bytes(json.dumps(content, separators=(",", ":")).encode())
        self._new = {}


def _key(status: os.stat_result) -> Key:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _load(path: Path) -> dict[Key, str]:
    """What a cache holds, the oldest first; nothing if it is missing, somebody else's, or damaged."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        status = os.fstat(handle)
        own = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if not (own and stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES):
            return {}
        with open(handle, "rb", closefd=False) as file:
            return _entries(json.loads(file.read(MAX_BYTES)))
    except (OSError, ValueError, RecursionError):
        return {}
    finally:
        os.close(handle)


def _entries(content: object) -> dict[Key, str]:
    """Raises ValueError if any of it is not as `save` writes it."""
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ValueError
    entries: dict[Key, str] = {}
    listed = content.get("entries")
    for entry in listed if isinstance(listed, list) else [None]:
        if not isinstance(entry, list) or len(entry) != 6 or not all(type(number) is int for number in entry[:5]):
            raise ValueError
        dev, inode, size, mtime, ctime, digest = entry
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError
        entries[dev, inode, size, mtime, ctime] = digest
    return entries


def _is_on_disk(handle: int) -> bool:
    """Whether it is now: a write to a mapping that comes later sets the ctime."""
    try:
        os.fsync(handle)
    except OSError:
        return False
    return True


def _keeps_ctime(handle: int) -> bool:
    """Whether an open file lies on one of `KEEPS_CTIME`: statfs begins with the type, a machine word."""
    statfs = (ctypes.c_long * 64)()
    try:
        failed = ctypes.CDLL(None).fstatfs(handle, statfs)
    except (AttributeError, OSError):  # no such function here
        return False
    return not failed and statfs[0] & 0xFFFFFFFF in KEEPS_CTIME
