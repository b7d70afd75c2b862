"""A file of requests cut into parts, each of which any machine can read by itself.

The cut depends on the file alone, so that a run that goes on finds the same parts. A part is known by what its rows
are, not by the file's bytes: a machine that has another file under the same path is found out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from hired_edge.errors import InputError
from hired_runtime.batch.requests_file import BadRow, Requests, Row, open_regular, rows_from
from hired_runtime.ray_batch.parquet_requests import is_parquet, parquet_rows_from

FEWEST, MOST, PARTS = 32, 1024, 1000
"""Rows of a part where nothing else is asked for: a thousandth of the requests, within these."""
_PROBES, _TRIES = 8, 256
_INT64 = 2**63


class Part(NamedTuple):
    """Rows that are handed out, and written, together.

    Args:
        number: of the part, from 0.
        first: number of its first row, from 1.
        count: of its rows.
        place: where it begins in the file, see `Requests.placed`.
        digest: of what its rows are.
        refused: rows that have an id and cannot be asked, such as one whose id an earlier row has; with the reason.
    """

    number: int
    first: int
    count: int
    place: int
    digest: str
    refused: tuple[tuple[int, str], ...]

    @property
    def rows(self) -> range:
        """Their numbers."""
        return range(self.first, self.first + self.count)


class Cut(NamedTuple):
    """A file of requests, cut.

    Args:
        parts: in order.
        integers: whether every id is an integer of 64 bits.
        pictures: some that are there, one of each of the first folders that pictures are in.
    """

    parts: list[Part]
    integers: bool
    pictures: tuple[str, ...]


def rows_of_a_part(count: int) -> int:
    """Where nothing else is asked for, of so many rows in all."""
    return max(FEWEST, min(MOST, -(-count // PARTS)))


def cut(requests: Requests, size: int) -> Cut:
    """Cuts a file into parts of `size` rows, the last one as it comes. Reads it once, as a stream.

    Raises:
        InputError: the file was changed since it was opened.
    """
    parts: list[Part] = []
    folders: dict[Path, str] = {}
    integers, tries, rows = True, 0, requests.placed()
    while held := list(islice(rows, size)):
        found = [row for _, row in held]
        refused = tuple((row.number, row.reason) for row in found if isinstance(row, BadRow) and row.id is not None)
        parts.append(Part(len(parts), found[0].number, len(found), held[0][0], _digest(found), refused))
        integers = integers and all(row.id is None or _is_int64(row.id) for row in found)
        for path in (path for row in found if isinstance(row, Row) for path in row.images):
            if tries < _TRIES and len(folders) < _PROBES and path.parent not in folders:
                tries += 1
                if path.is_file():
                    folders[path.parent] = str(path)
    return Cut(parts, integers, tuple(folders.values()))


def read_part(path: Path, part: Part) -> list[Row | BadRow]:
    """A part's rows, read from the file at `path`.

    Raises:
        InputError: the file cannot be read here, or is another one.
    """
    with open_regular(path) as file:
        if is_parquet(path):
            rows = parquet_rows_from(file, path, part.place, path.parent, at_once=part.count)
        else:
            rows = rows_from(file, part.place, part.first, path.parent)
        reasons = dict(part.refused)
        found = [_marked(row, reasons.get(row.number)) for _, row in islice(rows, part.count)]
    if _digest(found) != part.digest:
        raise InputError(
            f"{path} is another file than the one that the run has begun with",
            expected="the same requests on every machine, and as long as the run goes on",
            fix="put them where every machine sees the same file",
        )
    return found


def _marked(row: Row | BadRow, reason: str | None) -> Row | BadRow:
    return row if reason is None else BadRow(row.number, row.id, reason)


def _digest(rows: Iterable[Row | BadRow]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for line in map(json.dumps, _plain(rows)):
        digest.update(line.encode())
    return digest.hexdigest()


def _plain(rows: Iterable[Row | BadRow]) -> Iterator[list[object]]:
    for row in rows:
        what = [row.prompt, *map(str, row.images)] if isinstance(row, Row) else [row.reason]
        yield [row.number, row.id, *what]


def _is_int64(row_id: str | int) -> bool:
    return isinstance(row_id, int) and -_INT64 <= row_id < _INT64
