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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hired_runtime.continuous import Running
from hired_runtime.model import Model
from hired_runtime.pipeline import Pipeline
from hired_runtime.request import Request
from hired_runtime.serving.ticket import ClosingError, QueueFullError, StuckError, Ticket, in_loop

T = TypeVar("T")

_SMOOTHING = 0.2
"""Weight of the latest request in the mean time that a row is taken for."""
_LONGEST_RETRY_S = 60


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
        self._called: set[asyncio.Future[Any]] = set()
        self._running: dict[Running, Ticket] = {}
        self._changed = threading.Condition()
        self._draining, self._abandoned = False, False
        self._starting: Ticket | None = None
        self._inside_since: float | None = None
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
        return len(self._running) + (self._starting is not None)

    @property
    def inside_s(self) -> float:
        """For how long the thread has been inside one prompt's prefill, one step of all rows, or one call."""
        since = self._inside_since
        return 0.0 if since is None else time.monotonic() - since

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
            QueueFullError, ClosingError, StuckError, or whatever `work` raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                result = work(self.model.pipeline)
            except Exception as error:
                in_loop(loop, _settle, future, None, error)
            else:
                in_loop(loop, _settle, future, result, None)

        with self._changed:
            self._check_room(self._calls)
            self._calls.append(run)
            self._changed.notify()
        self._called.add(future)
        try:
            return await future
        finally:
            self._called.discard(future)

    def drain(self) -> None:
        """Nothing new is taken; what waits is refused; what runs is finished."""
        with self._changed:
            self._draining = True
            refused, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for ticket in refused:
            ticket.put(ClosingError())

    def give_up(self) -> None:
        """Tells everyone who waits that the engine is stuck. Nothing is answered any more, should it come back. Call it
        in the event loop."""
        self._abandoned = True
        self.drain()
        starting = self._starting
        for ticket in [*self._running.values(), *([] if starting is None else [starting])]:
            ticket.put(StuckError())
        for future in self._called:
            _settle(future, None, StuckError())

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
                    with self._inside():
                        call()
                self._turn()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self._inside_since = time.monotonic()
        try:
            yield
        finally:
            self._inside_since = None

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
        self._starting = ticket
        try:
            with self._inside():
                running = self._batcher.start(ticket.request, ticket.timings)
            self._running[running] = ticket
        except Exception as error:
            ticket.put(error)
            self._fail_the_lost(error)
        finally:
            self._starting = None
        self._deliver()  # the first token is not kept waiting by the next prefill

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            with self._inside():
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
            if running.error is not None:
                del self._running[running]
                ticket.put(running.error)
            elif running.answer is not None:
                del self._running[running]
                taken_s = (running.answer.timings_ms["total"] - running.answer.timings_ms["queue"]) / 1e3
                self._mean_s += _SMOOTHING * (taken_s - self._mean_s)
                ticket.put(running.answer)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():  # its client is gone, or was told that the engine is stuck
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
