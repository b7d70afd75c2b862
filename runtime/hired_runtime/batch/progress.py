"""How far a batch has got, with its rate, the time left and the errors so far, on stderr if anyone is looking.

A bar where tqdm is installed (the `eval` extra), else a line.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from hired_runtime import progress_bar
from hired_runtime.profiling.progress import line

Show = Callable[[int, int, int], None]
"""Called with rows done, rows in all, and how many of the rows done are errors."""


@contextlib.contextmanager
def shown() -> Iterator[Show]:
    """Yields what is called once at the beginning, and after each row."""
    with _bar() if find_spec("tqdm") is not None else _line() as show:
        yield show


@contextlib.contextmanager
def _bar() -> Iterator[Show]:
    with progress_bar.bar("row") as show:
        yield lambda done, total, errors: show(done, total, f"{errors} errors" if errors else "")


@contextlib.contextmanager
def _line() -> Iterator[Show]:
    first: tuple[float, int] | None = None
    latest = 0.0
    with line() as write:

        def show(done: int, total: int, errors: int) -> None:
            nonlocal first, latest
            now = time.monotonic()
            if first is None:
                first = now, done
            if now - latest < 0.1 and done < total:
                return
            latest = now
            write(f"{done}/{total} rows{_pace(now - first[0], done - first[1], total - done)}, {errors} errors")

        yield show


def _pace(seconds: float, made: int, left: int) -> str:
    if made == 0 or seconds <= 0:
        return ""
    rate = made / seconds
    minutes, rest = divmod(round(left / rate), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f", {rate:.1f} rows/s, {clock} left"
