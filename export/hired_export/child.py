"""Calls a function in a process of its own: its memory ends with it, and a crash there is an error here."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from hired_edge.errors import HiredEdgeError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
EXIT_S = 10.0
"""How long a process that has answered may take to clean up after itself."""


def call(function: Callable[[Argument], Result], argument: Argument, *, died: HiredEdgeError) -> Result:
    """`function(argument)`, in a new process that Ctrl-C does not reach and that does not outlive this call.

    Args:
        function: of a module's top level.
        argument: small enough to be sent.
        died: raised where the process ends without an answer.

    Raises:
        HiredEdgeError, OSError: as `function` raised it. Any other error is a bug: its traceback goes to stderr.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(function, argument, sender), daemon=True)
    try:
        with _interrupts_held():
            process.start()
        sender.close()
        answer = receiver.recv()
        process.join(EXIT_S)
    except EOFError:
        raise died from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; one that is started here never sees it: its parent ends it."""
    resource_tracker.ensure_running()  # otherwise `start` starts it, and lets interrupts through afterwards
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(function: Callable[[Any], object], argument: object, sender: Connection) -> None:
    try:
        answer = function(argument)
    except (HiredEdgeError, OSError) as error:
        answer = error
    with contextlib.suppress(BrokenPipeError):  # the caller was killed: nobody listens
        sender.send(answer)
