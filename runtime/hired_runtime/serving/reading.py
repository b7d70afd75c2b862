"""Threads in which bodies are parsed, checked and hashed, since other answers are streamed meanwhile.

So few that strangers' megabytes fill neither the processors nor the threads of everything else. Knows nothing of what
is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")
THREADS = 2


class Readers:
    """Of one server."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(THREADS)

    async def __call__(self, work: Callable[[bytes], T], body: bytes) -> T:
        """`work(body)` in one of the threads, or whatever it raises. Whoever waits for a thread can be cancelled."""
        return await anyio.to_thread.run_sync(work, body, limiter=self._limiter)
