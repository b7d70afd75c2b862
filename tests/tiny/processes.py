"""Other processes, by Linux's /proc: who has started whom, with what, and whether they are gone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

PATIENCE_S = 300
"""Longer than anything here takes, on an emulated machine too: only what hangs reaches it."""
PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """The processes that `pid` has started itself and that have not ended."""
    return [each for each in _all() if _stat(each)[1:] == [str(pid)]]


def running(words: str) -> list[int]:
    """The processes whose command line holds `words`."""
    found = []
    for each in _all():
        try:
            command = (PROC / str(each) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in command:
            found.append(each)
    return found


def all_gone(pids: Iterable[int], timeout: float = PATIENCE_S) -> bool:
    """Whether all of them end in time; one that nobody has waited for yet (a zombie) has ended."""
    end = time.monotonic() + timeout
    while any(_stat(each)[:1] not in ([], ["Z"]) for each in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _all() -> list[int]:
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """[state, parent]; empty if there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return []
