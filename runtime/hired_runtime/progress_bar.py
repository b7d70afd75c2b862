"""A bar on stderr, if anyone is looking. Needs tqdm, which not every installation has. Knows not what it counts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar(unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields what shows (done, total, words beside them). Time and rate count from its first call on.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """
    from tqdm import tqdm

    # tqdm's own lock is shared by processes: the semaphore of one that is killed is reported on stderr as leaked.
    tqdm.set_lock(threading.RLock())
    shown: tqdm | None = None

    def show(done: int, total: int, words: str) -> None:
        nonlocal shown
        if shown is None:
            shown = tqdm(total=total, initial=done, unit=unit, disable=None)
        if not shown.disable:
            shown.set_postfix_str(words, refresh=False)
        shown.update(done - shown.n)

    try:
        yield show
    finally:
        if shown is not None:
            shown.close()
