"""The order in which rows are asked: those about the same pictures one behind the other, as far as one looks ahead.

The second question about a picture costs a fraction of the first, if no other picture comes between. Knows no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from hired_runtime.batch.requests_file import BadRow, Row

ROWS, CHARACTERS = 2048, 2**20
"""What is held back at most: rows, and characters of their prompts."""


def together(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The same rows, those about one set of pictures in their own order."""
    held: dict[tuple[Path, ...], deque[Row | BadRow]] = {}
    count = characters = 0
    pictures: tuple[Path, ...] = ()

    def taken() -> Row | BadRow:
        nonlocal pictures, count, characters
        if pictures not in held:
            pictures = next(iter(held))
        row = held[pictures].popleft()
        if not held[pictures]:
            del held[pictures]
        count, characters = count - 1, characters - _length(row)
        return row

    for row in rows:
        held.setdefault(row.images if isinstance(row, Row) else (), deque()).append(row)
        count, characters = count + 1, characters + _length(row)
        while count > ROWS or (characters > CHARACTERS and count > 1):
            yield taken()
    while held:
        yield taken()


def _length(row: Row | BadRow) -> int:
    return len(row.prompt) if isinstance(row, Row) else 0
