"""Calls a function in a process of its own: its memory ends with it, and a crash there is an error here."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from hired_edge.errors import HiredEdgeError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Report = Callable[[Any], None]
"""How a function tells its caller that it has got further."""

EXIT_S = 10.0
"""How long a process that has answered may take to clean up after itself."""


def call(
    function: Callable[[Argument], Result], argument: Argument, *, died: Callable[[int], HiredEdgeError]
) -> Result:
    """`function(argument)`, in a new process that Ctrl-C does not reach and that does not outlive this call.

    Args:
        function: of a module's top level.
        argument: small enough to be sent.
        died: the error to raise where the process ends without an answer, by its exit status (-N: killed by signal N).

    Raises:
        HiredEdgeError, OSError, ModuleNotFoundError: as `function` raised it. Any other error is a bug: its traceback
            goes to stderr.
    """
    return _call(partial(_silently, function), argument, died, lambda _: None)


def call_reporting(
    function: Callable[[Argument, Report], Result],
    argument: Argument,
    on_report: Report,
    *,
    died: Callable[[int], HiredEdgeError],
) -> Result:
    """As `call`, of `function(argument, report)`: whatever it reports on its way is handed to `on_report` here."""
    return _call(function, argument, died, on_report)


def _silently(function: Callable[[Any], Any], argument: object, report: Report) -> object:
    return function(argument)


def _call(
    function: Callable[[Any, Report], Any],
    argument: object,
    died: Callable[[int], HiredEdgeError],
    on_report: Report,
) -> Any:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(function, argument, sender), daemon=True)
    try:
        with _interrupts_held():
            process.start()
        sender.close()
        while True:
            last, message = receiver.recv()
            if last:
                break
            on_report(message)
        process.join(EXIT_S)
    except EOFError:
        process.join(EXIT_S)
        raise died(process.exitcode or 0) from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    if isinstance(message, Exception):
        raise message
    return message


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; one that is started here never sees it: its parent ends it."""
    resource_tracker.ensure_running()  # otherwise `start` starts it, and lets interrupts through afterwards
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(function: Callable[[Any, Report], object], argument: object, sender: Connection) -> None:
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the caller was killed: nobody listens
        try:
            answer = function(argument, lambda message: sender.send((False, message)))
        except BrokenPipeError:
            raise
        except (HiredEdgeError, OSError, ModuleNotFoundError) as error:
            answer = error
        sender.send((True, answer))


def _end_with_the_caller() -> None:
    """A caller that is killed cannot end its process: it ends itself, or it would go on writing where the next one
    writes."""
    caller = multiprocessing.parent_process()
    assert caller is not None
    wait([caller.sentinel])
    os._exit(1)
