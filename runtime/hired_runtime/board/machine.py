"""Where readings come from: files below a root folder and commands with a time limit, never a shell.

Everything that this package knows about a machine comes through here, so that a folder of recorded outputs can take a
machine's place. It interprets nothing.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMED_OUT = 124  # as `timeout` of coreutils reports it


@dataclass(frozen=True)
class Output:
    """What a command left: its exit status (-N: killed by signal N; TIMED_OUT), stdout and stderr."""

    status: int
    text: str
    errors: str = ""


class Machine:
    """This machine, or the one whose file system lies below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """The contents of `path` (absolute), NULs read as line ends as the device tree has them; None if unreadable."""
        try:
            return self._below(path).read_text("utf-8", errors="replace").replace("\0", "\n")
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        """What lies in `folder` (absolute), sorted; nothing if it is unreadable."""
        try:
            return sorted(os.listdir(self._below(folder)))
        except OSError:
            return []

    def command(self, *argv: str, timeout_s: float = 10.0) -> Output | None:
        """Runs a command and waits for it; None where it is not installed.

        One that does not end by itself (tegrastats) is ended after `timeout_s`: what it wrote until then is kept.
        """
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError:
            return None
        except subprocess.TimeoutExpired as late:
            return Output(TIMED_OUT, _text(late.stdout), f"no answer within {timeout_s:g} s")
        return Output(done.returncode, _text(done.stdout), _text(done.stderr))

    def _below(self, path: str) -> Path:
        assert path.startswith("/"), path
        return self._root / path[1:]


def _text(stream: bytes | None) -> str:
    return (stream or b"").decode("utf-8", errors="replace")
