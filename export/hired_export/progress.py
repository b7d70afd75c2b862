"""What an export is doing, on stderr: one line a step, with a bar and the time left where its length is known, and a
clock where not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from tqdm import tqdm

OnBytes = Callable[[int], None]
TICK_S = 0.5
CLOCK = "{desc}: {elapsed}"

# tqdm's own lock is shared by processes: the semaphore of one that is killed is reported on stderr as leaked.
tqdm.set_lock(threading.RLock())


@contextlib.contextmanager
def step(name: str, show: bool, total: int | None = None, unit: str = "B") -> Iterator[Callable[[int], None]]:
    """Shows one step and yields what to call with the progress made since the last call.

    Args:
        name: what is being done.
        show: False for silence, which there is as well where stderr is no terminal.
        total: of `unit`, if it is known; otherwise elapsed time is shown, and calls do nothing.
    """
    layout = CLOCK if total is None else None
    hidden = None if show else True  # None: where stderr is no terminal
    bar = tqdm(desc=name, total=total, unit=unit, unit_scale=unit == "B", disable=hidden, bar_format=layout)
    done = threading.Event()

    def tick() -> None:
        while not done.wait(TICK_S):
            bar.refresh()

    clock = threading.Thread(target=tick, daemon=True)
    if not bar.disable:
        clock.start()

    def advance(count: int) -> None:
        bar.update(count)

    try:
        yield advance
    finally:
        done.set()
        if clock.is_alive():
            clock.join()
        bar.close()
