"""A program on a terminal of its own, a pseudo-terminal, as a person uses it. Knows nothing about any command."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from typing import Any

from tests.tiny.processes import PATIENCE_S

_READLINE = re.compile("\x1b\\[\\?2004[hl]\r?")
"""What readline tells a terminal about pasting."""


class OnTerminal:
    """`hired-edge argv...` with the terminal as its stdin, stdout and stderr. A context manager, which kills it.

    Attributes:
        process: the program.
        found: the terminal's attributes before it was started.
        shown: everything that it has written so far, as it is.
    """

    def __init__(self, *argv: object, program: str | None = None) -> None:
        """`program`: see `tests.tiny.commands.slow_steps`."""
        self._main, self._terminal = os.openpty()
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self.found = self.attributes()
        self.shown, self._seen = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        options: Sequence[str] = [] if program is None else ["-c", program]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, *options, "-m", "hired_edge", *map(str, argv)],
            env={**environment, "TERM": "xterm", "INPUTRC": os.devnull},
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            start_new_session=True,
            preexec_fn=_as_a_shell_starts_it,
        )

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self._terminal)

    def attributes(self) -> list[Any]:
        """The terminal's, as termios has them."""
        return termios.tcgetattr(self._terminal)

    def send(self, text: str) -> None:
        os.write(self._main, text.encode())

    def until(self, text: str) -> str:
        """What is shown up to and with `text`, after what an earlier call has returned; without readline's own."""
        end = time.monotonic() + PATIENCE_S
        while (at := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < end, f"no {text!r} in {self.shown[self._seen :]!r}"
            if not self.look(0.1) and self.process.poll() is not None and not self.look(0):
                raise AssertionError(f"it has ended without {text!r}: {self.shown[self._seen :]!r}")
        before, self._seen = self._seen, at + len(text)
        return _READLINE.sub("", self.shown[before : self._seen])

    def ended(self) -> int:
        """The exit status, once it ends; negative for a signal."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.shown
            self.look(0.05)
        while self.look(0):
            pass
        return self.process.returncode

    def look(self, seconds: float) -> bool:
        """Whether it writes something within that time."""
        if not select.select([self._main], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):
            self.shown += self._decoder.decode(os.read(self._main, 2**16))
            return True
        return False


def _as_a_shell_starts_it() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
