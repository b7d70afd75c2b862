"""The thread that owns an opened model: requests wait in a bounded queue and are answered side by side.

As many run as the model was opened with rows for; one that ends makes room at once, between two tokens (continuous
batching), and a cancelled one leaves before the next token. The event loop only ever touches tickets. Knows nothing
of HTTP.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from hired_edge.errors import HiredEdgeError
from hired_runtime.continuous import Running
from hired_runtime.model import Model
from hired_runtime.pipeline import Pipeline
from hired_runtime.request import Answer, Request
from hired_runtime.timings import Timings

T = TypeVar("T")

_SMOOTHING = 0.2
"""Weight of the latest request in the mean time that a row is taken for."""
_LONGEST_RETRY_S = 60


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


class Ticket:
    """An answer on its way. Iterate over its pieces of text, in the event loop that submitted it; then read `answer`.

    Raises (while iterating): InputError, LimitError, BundleError, ClosingError.
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
        _in_loop(self._loop, self._pieces.put_nowait, piece)


class Engine:
    """Args:
        model: opened; nobody else uses it from now on.
        queue: requests that may wait.

    Attributes:
        model: as given.
        rows: requests that run at once, at most.
    """

    def __init__(self, model: Model, *, queue: int = 32) -> None:
        self.model, self.rows = model, model.limits.batch
        self._batcher, self._queue = model.pipeline.batcher, queue
        self._waiting: deque[Ticket] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._running: dict[Running, Ticket] = {}
        self._changed = threading.Condition()
        self._draining, self._abandoned, self._starting = False, False, 0
        self._mean_s = 1.0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that have a row, or are being given one: a long prompt takes a while."""
        return len(self._running) + self._starting

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return not self._draining and self._thread.is_alive()

    def submit(self, request: Request) -> Ticket:
        """Puts a request into the queue; call it in the event loop that will read the ticket.

        Raises:
            QueueFullError, ClosingError.
        """
        ticket = Ticket(request, self._cancel)
        with self._changed:
            self._check_room(self._waiting)
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    async def call(self, work: Callable[[Pipeline], T]) -> T:
        """`work(pipeline)` on the engine's thread, between two steps: it should take milliseconds.

        Raises:
            QueueFullError, ClosingError, or whatever `work` raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                result = work(self.model.pipeline)
            except Exception as error:
                _in_loop(loop, _settle, future, None, error)
            else:
                _in_loop(loop, _settle, future, result, None)

        with self._changed:
            self._check_room(self._calls)
            self._calls.append(run)
            self._changed.notify()
        return await future

    def drain(self) -> None:
        """Nothing new is taken; what waits is refused; what runs is finished."""
        with self._changed:
            self._draining = True
            refused, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for ticket in refused:
            ticket.put(ClosingError())

    def close(self, timeout_s: float | None = None) -> bool:
        """Drains, waits for what runs, and releases the model.

        Args:
            timeout_s: after it what runs is given up; None = never.

        Returns:
            whether it ended. After twice the time the thread is still inside a library, and the model not released.
        """
        self.drain()
        self._thread.join(timeout_s)
        self._abandoned = True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self.model.close()
        return True

    def _check_room(self, line: deque[Any]) -> None:
        if self._draining:
            raise ClosingError
        if len(line) >= self._queue:
            wait = math.ceil(self._mean_s * len(line) / self.rows)
            raise QueueFullError(len(line), min(max(1, wait), _LONGEST_RETRY_S))

    def _cancel(self, ticket: Ticket) -> None:
        with self._changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._calls or self._running or self._draining):
                    self._changed.wait()
                if self._draining and not (self._calls or self._running):
                    return
                call = self._calls.popleft() if self._calls else None
            with self.model.pipeline.turns.lock:
                if call is not None:  # one a step, since it may run the vision tower
                    call()
                self._turn()

    def _turn(self) -> None:
        """Lets who was cancelled out, who waits in, and makes one more token for everyone."""
        for running, ticket in list(self._running.items()):
            if ticket.cancelled or self._abandoned:
                self._batcher.drop(running)
                del self._running[running]
                ticket.put(ClosingError())
        while self._batcher.free and (ticket := self._next()) is not None:
            self._start(ticket)
        if self._running:
            self._guarded(self._batcher.step)
        self._deliver()

    def _next(self) -> Ticket | None:
        with self._changed:
            return self._waiting.popleft() if self._waiting else None

    def _start(self, ticket: Ticket) -> None:
        ticket.timings.add("queue", 1e3 * (time.perf_counter() - ticket.timings.started))
        self._starting = 1
        try:
            self._running[self._batcher.start(ticket.request, ticket.timings)] = ticket
        except Exception as error:
            ticket.put(error)
            self._fail_the_lost(error)
        finally:
            self._starting = 0
        self._deliver()  # the first token is not kept waiting by the next prefill

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._fail_the_lost(error)

    def _fail_the_lost(self, error: Exception) -> None:
        """Tells those whose rows went with a failing engine. A refused request takes nobody with it."""
        for running, ticket in list(self._running.items()):
            if running.answer is None and running not in self._batcher.running:
                del self._running[running]
                ticket.put(error)

    def _deliver(self) -> None:
        for running, ticket in list(self._running.items()):
            if piece := running.take():
                ticket.put(piece)
            if running.answer is not None:
                del self._running[running]
                taken_s = (running.answer.timings_ms["total"] - running.answer.timings_ms["queue"]) / 1e3
                self._mean_s += _SMOOTHING * (taken_s - self._mean_s)
                ticket.put(running.answer)


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Calls it in the event loop, from another thread; a loop that has ended hears nothing."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
