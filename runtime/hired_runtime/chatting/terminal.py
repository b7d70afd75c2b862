"""The terminal that a conversation runs on: lines in, text out, and left as it was found whatever ends it.

Where stdin is no terminal there is no prompt; where stdout is none, it gets the answers alone and the rest goes to
stderr. Line editing and a history of lines, in memory, come from `readline` where Python has it.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import termios
from collections.abc import Iterator
from types import FrameType
from typing import Any

from hired_runtime.chatting.plain import plain

PROMPT = "> "
_ALARM_S = 0.1
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Terminal:
    """A context manager: inside it, signals that end a process end it by an exception, in the foreground.

    Attributes:
        interactive: whether a person types the lines.
    """

    def __init__(self) -> None:
        self.interactive = _is_terminal(sys.stdin)
        self._shown = _is_terminal(sys.stdout)
        self._edited = self.interactive and self._shown
        self._found: tuple[int, list[Any]] | None = None
        self._handlers: list[tuple[int, Any]] = []
        self._open, self._pieces = False, 0
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is an error of that question
        if self._edited:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  # input() uses it from now on

    def __enter__(self) -> Terminal:
        if self.interactive:
            descriptor = sys.stdin.fileno()
            self._found = descriptor, termios.tcgetattr(descriptor)
            self._handlers = [(number, signal.signal(number, self._end)) for number in _ENDING]
        return self

    def __exit__(self, *_: object) -> None:
        if self._found is not None and self._in_foreground():
            termios.tcsetattr(self._found[0], termios.TCSADRAIN, self._found[1])
        for number, handler in self._handlers:
            signal.signal(number, handler)

    def read(self) -> str:
        """The next line, without its end.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C.
        """
        if self._edited:
            with _alarms():
                return input(PROMPT)
        if self.interactive:
            print(PROMPT, end="", file=sys.stderr, flush=True)
        line = "" if sys.stdin is None else sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def show(self, piece: str) -> None:
        """A piece of an answer."""
        if piece:
            print(plain(piece), end="", flush=True)
            self._open, self._pieces = not piece.endswith("\n"), self._pieces + 1

    def end_answer(self) -> None:
        """The answer is whole: an empty one is an empty line."""
        self._end_line(self._open or not self._pieces)

    def say(self, text: str) -> None:
        """A remark, which is no part of an answer."""
        self._end_line(self._open)
        print(plain(text), file=sys.stdout if self._shown else sys.stderr, flush=True)

    def _end_line(self, needed: bool) -> None:
        if needed:
            print(flush=True)
        self._open, self._pieces = False, 0

    def _end(self, number: int, _: FrameType | None) -> None:
        """readline gives the terminal back when it is left by an exception, and only then."""
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        if not self._in_foreground():  # it is the shell's again, and setting it would stop this process for good
            os._exit(128 + number)
        raise SystemExit(128 + number)

    def _in_foreground(self) -> bool:
        assert self._found is not None
        try:
            return os.tcgetpgrp(self._found[0]) == os.getpgrp()
        except OSError:  # it has gone away, or is not the one that this process was started from
            return False


class Stop:
    """While it is entered, a Ctrl-C is noted in `asked`, so that an answer can stop between two tokens with everything
    in order; a second one breaks in."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Stop:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def _alarms() -> Iterator[None]:
    """Python's readline looks for signals when one interrupts its waiting: a Ctrl-C that comes just before it waits
    would be seen with the next key only, were it not for these."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _ALARM_S, _ALARM_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()
