"""TensorRT's log: all of it to a file, and its last errors for a message. One line a record."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

KEPT = 8
CALLER = "IBuilder::"
"""How the error that ended a build begins; what follows it are complaints while cleaning up."""


class LastErrors:
    """The last few errors, and which of them says why a build failed."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=KEPT)

    def add(self, message: str) -> None:
        self._errors.append(one_line(message))

    def reason(self) -> str:
        """The builder's own last error, or the last error of all."""
        named = [error for error in self._errors if error.startswith(CALLER)]
        return (named or list(self._errors) or ["no reason given"])[-1]


def one_line(message: str, limit: int = 300) -> str:
    text = " ".join(message.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class LogFile:
    """Appended to, a record at a time. What the disk has no room for is left out: no build fails for its log."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, record: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(record.encode("utf-8", errors="replace"))


def open_log(path: Path | None) -> LogFile | None:
    """The log file, appended to; its folder is made."""
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return LogFile(path)


def logger(trt: Any, errors: LastErrors, file: LogFile | None) -> Any:
    """An ILogger. It must outlive everything that is made with it: the caller deletes it last."""
    severities = {
        trt.ILogger.INTERNAL_ERROR: "internal error",
        trt.ILogger.ERROR: "error",
        trt.ILogger.WARNING: "warning",
        trt.ILogger.INFO: "info",
    }  # verbose is left out: thousands of lines a second would slow the build down

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._lock = threading.Lock()

        def log(self, severity: Any, msg: str) -> None:
            name = severities.get(severity)
            if name is None:
                return
            with self._lock:
                if name.endswith("error"):
                    errors.add(msg)
                if file is not None:
                    file.write(f"{name}: {one_line(msg, 2000)}\n")

    return Logger()
