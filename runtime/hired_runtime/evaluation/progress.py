"""A bar over pictures with answers a second, on stderr, if anyone is looking. Needs tqdm (the `eval` extra)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from hired_runtime.evaluation.runner import OnPicture


@contextlib.contextmanager
def bar() -> Iterator[OnPicture]:
    """Yields what `evaluate` calls after each picture.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """
    from tqdm import tqdm

    # tqdm's own lock is shared by processes: the semaphore of one that is killed is reported on stderr as leaked.
    tqdm.set_lock(threading.RLock())
    shown: tqdm | None = None
    started, made = 0.0, 0

    def on_picture(done: int, total: int, answers: int) -> None:
        nonlocal shown, started, made
        if shown is None:
            shown, started = tqdm(total=total, unit="picture", disable=None), time.perf_counter()
        elif not shown.disable:
            made += answers
            shown.set_postfix_str(f"{made / (time.perf_counter() - started):.1f} answers/s", refresh=False)
        shown.update(done - shown.n)

    try:
        yield on_picture
    finally:
        if shown is not None:
            shown.close()
