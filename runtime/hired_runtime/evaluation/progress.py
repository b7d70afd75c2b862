"""A bar over pictures with answers a second, on stderr, if anyone is looking. Needs tqdm (the `eval` extra)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from hired_runtime import progress_bar
from hired_runtime.evaluation.runner import OnPicture


@contextlib.contextmanager
def bar() -> Iterator[OnPicture]:
    """Yields what `evaluate` calls after each picture.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """
    started, made = 0.0, 0
    with progress_bar.bar("picture") as show:

        def on_picture(done: int, total: int, answers: int) -> None:
            nonlocal started, made
            if not started:  # the first picture's answers came before there was a clock
                started = time.perf_counter()
                show(done, total, "")
                return
            made += answers
            show(done, total, f"{made / (time.perf_counter() - started):.1f} answers/s")

        yield on_picture
