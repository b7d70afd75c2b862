"""An answer on its way from the engine's thread to the event loop, and why there may be none. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hired_edge.errors import HiredEdgeError
from hired_runtime.request import Answer, Request
from hired_runtime.timings import Timings


class QueueFullError(HiredEdgeError):
    """As many requests wait as may.

    Args:
        retry_after_s: when it is worth asking again, whole seconds.
    """

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} requests waiting", expected="a place in the queue", fix="try again later")
        self.retry_after_s = retry_after_s


class ClosingError(HiredEdgeError):
    """The server is shutting down and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("a server that is shutting down", expected="one that runs", fix="try again later")


class StuckError(HiredEdgeError):
    """The engine has not come back for longer than the watchdog waits."""

    def __init__(self) -> None:
        super().__init__("an engine that does not come back", expected="one that does", fix="try again later")


class Ticket:
    """An answer on its way. Iterate over its pieces of text, in the event loop that submitted it; then read `answer`.

    Raises (while iterating): InputError, LimitError, BundleError, ClosingError, StuckError.
    """

    def __init__(self, request: Request, on_cancel: Callable[[Ticket], None]) -> None:
        self.request, self.timings = request, Timings()
        self.cancelled = False
        self._on_cancel, self._loop = on_cancel, asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | Answer | Exception] = asyncio.Queue()
        self._answer: Answer | None = None

    def __aiter__(self) -> Ticket:
        return self

    async def __anext__(self) -> str:
        if self._answer is not None:
            raise StopAsyncIteration
        piece = await self._pieces.get()
        if isinstance(piece, Answer):
            self._answer = piece
            raise StopAsyncIteration
        if isinstance(piece, Exception):
            raise piece
        return piece

    @property
    def answer(self) -> Answer:
        """Of a ticket that was read to its end. Its timings have `queue`, the wait for a row, which ttft includes."""
        assert self._answer is not None
        return self._answer

    def cancel(self) -> None:
        """Gives the answer up: its row is free before the next token. Harmless once it has ended."""
        self.cancelled = True
        self._on_cancel(self)

    def put(self, piece: str | Answer | Exception) -> None:
        """From the engine's thread."""
        in_loop(self._loop, self._pieces.put_nowait, piece)


def in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Calls it in the event loop, from another thread; a loop that has ended hears nothing."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
