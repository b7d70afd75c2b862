"""A small disk of its own (tmpfs) for commands that are to find it full; without the right to mount one, a limit."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

BYTES = 2**28
LEFT = (0, 4096, 20 * 4096, 300 * 4096)
"""Bytes that are left when the disk fills up, in turn."""
_INSIDE = "HIRED_EDGE_OWN_MOUNTS"


def with_own_mounts() -> None:
    """Starts this program again in a namespace where it may mount a disk, if the system lets it."""
    if _INSIDE not in os.environ and subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0:
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, "-m", "tests.crashes", *sys.argv[1:]])


@contextlib.contextmanager
def disk() -> Iterator[tuple[Path, Path | None]]:
    """A folder, and the file that fills the disk that it lies on; None: no disk of our own could be mounted."""
    with tempfile.TemporaryDirectory(prefix="hired-edge-disk-") as folder:
        size = f"size={BYTES}"
        if _INSIDE not in os.environ or subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", folder]).returncode:
            yield Path(folder), None
            return
        try:
            yield Path(folder), Path(folder, "ballast")
        finally:
            subprocess.run(["umount", folder], check=True)
