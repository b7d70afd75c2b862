"""What is done in child processes of the tests: in a module that is imported fast."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hired_edge.errors import CheckpointError


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to write a file beyond `size` bytes (EFBIG): a disk that is full for this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refuse(path: Path) -> None:
    raise CheckpointError(f"{path} is bad", expected="a good one", fix="pass another")


def fill(path: Path) -> None:
    with largest_file(10):
        path.write_bytes(bytes(11))


def count(numbers: tuple[int, int], report: Callable[[int], None]) -> str:
    """Reports the numbers below the first; ends the process there if the second is among them."""
    for number in range(numbers[0]):
        if number == numbers[1]:
            os._exit(number)
        report(number)
    return "done"


def note_and_wait(path: Path) -> None:
    """Writes its process's id to a file, in one step, and does nothing for a minute."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(str(os.getpid()))
    partial.rename(path)
    time.sleep(60)
