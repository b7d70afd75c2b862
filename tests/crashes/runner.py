"""`hired-edge` in a process that counts its steps on the disk; before the n-th it is killed, or the disk fills up.

A step is what Python announces (PEP 578) below one folder: a file opened to be written, a rename, a file or a folder
made or removed, and every fsync. What C++ libraries write is between steps. Nothing of the command is changed.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

PATHS = {
    "os.rename": (0, 2),
    "os.remove": (0, 1),
    "os.mkdir": (0, 2),
    "os.rmdir": (0, 1),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
    "os.truncate": (0, None),
}
"""Event -> where its arguments hold a path, and the folder that the path is relative to."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Steps:
    """An audit hook. Processes that are forked from this one go on with the same count.

    Args:
        folder: what happens elsewhere is no step.
        tell: gets a byte for each step.
        moment: step: before which something happens, the first being 1; None = never. left: None = all of the process
            group is killed; else the disk fills up to so many bytes. ballast: the file that fills it; None = no file
            can grow beyond `left` from then on.
    """

    def __init__(self, folder: str, tell: int, moment: dict[str, Any]) -> None:
        self._folder, self._tell, self._moment = folder, tell, moment
        self._count = mmap.mmap(-1, 8)
        self._fsync: Callable[[int], None] = os.fsync

    def watch(self) -> None:
        sys.addaudithook(self.hook)
        os.fsync = self.fsync

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and self._is_ours(path, -1):
                self.step()
        elif event in PATHS:
            path, folder = PATHS[event]
            if self._is_ours(arguments[path], -1 if folder is None else arguments[folder]):
                self.step()

    def fsync(self, handle: Any) -> None:
        self.step()
        self._fsync(handle)

    def step(self) -> None:
        count = int.from_bytes(self._count[:], "little") + 1
        self._count[:] = count.to_bytes(8, "little")
        os.write(self._tell, b".")
        if count == self._moment["step"]:
            left = self._moment["left"]
            if left is None:
                os.killpg(0, signal.SIGKILL)
            else:
                fill(left, self._moment["ballast"])

    def _is_ours(self, path: object, folder: int) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return folder != -1 or os.fspath(path).startswith(self._folder)


def fill(left: int, ballast: str | None) -> None:
    if ballast is None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return
    handle = os.open(os.path.dirname(ballast), os.O_RDONLY)
    disk = os.fstatvfs(handle)
    os.close(handle)
    size = disk.f_bavail * disk.f_bsize - left
    if size > 0:
        handle = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o666)
        os.posix_fallocate(handle, 0, size)
        os.close(handle)


def run(folder: str, tell: int, moment: dict[str, Any], argv: list[str]) -> int:
    """The command's exit status."""
    from hired_edge.cli import main

    Steps(folder, tell, moment).watch()
    return main(argv)


if __name__ == "__main__":
    where, handle, moment, *words = sys.argv[1:]
    sys.exit(run(where, int(handle), json.loads(moment), words))
