"""Requests as a Parquet file: columns `id`, `prompt` and perhaps `image`, as the keys of a row of JSON lines.

Read as a stream, some thousand rows at a time, by whatever row groups the file has. Needs pyarrow (the `ray` extra).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hired_edge.errors import InputError
from hired_edge.strict import show
from hired_runtime.batch.requests_file import KEYS, BadRow, Requests, Row, row_of

SUFFIXES = (".parquet", ".pq")
_AT_ONCE = 4096
_NEEDED = ("id", "prompt")


def is_parquet(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in SUFFIXES


class ParquetRequests(Requests):
    """As `Requests`; a row's place is its index. Columns that are none of a request's are refused with the file.

    Raises:
        InputError: it is no Parquet file, or has other columns.
    """

    def _parse(self, digest: Any) -> Iterator[tuple[int, Row | BadRow]]:
        self._file.seek(0)
        while data := self._file.read(2**20):
            digest.update(data)
        return parquet_rows_from(self._file, self.path, 0, self._folder)


def parquet_rows_from(
    file: BinaryIO, path: Path, place: int, folder: Path, *, at_once: int = _AT_ONCE
) -> Iterator[tuple[int, Row | BadRow]]:
    """Each row's index and the row, from the one at `place` on. Row groups before it are not read.

    Args:
        path: the file's, for errors.
        folder: that pictures' paths are relative to.
        at_once: rows that are decoded together.

    Raises:
        InputError: no Parquet file, a damaged one, or one with other columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        names = table.schema_arrow.names
        _check(path, names)
        groups, first = [], 0
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if groups or place < first + rows:
                groups.append(group)
            else:
                first += rows
        for batch in table.iter_batches(at_once, row_groups=groups, columns=names):
            if first + batch.num_rows > place:
                begin = max(first, place)
                for index, fields in enumerate(batch.slice(begin - first).to_pylist(), begin):
                    yield index, row_of(index + 1, fields, folder)
            first += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} cannot be read as Parquet ({reason})", expected="a Parquet file of requests", fix="check the file"
        ) from None


def _check(path: Path, names: list[str]) -> None:
    missing = [name for name in _NEEDED if name not in names]
    unknown = [name for name in names if name not in KEYS]
    twice = [name for name in KEYS if names.count(name) > 1]
    if missing or unknown or twice:
        got = f"has no column {missing[0]!r}" if missing else f"has the column {show((unknown or twice)[0])}"
        got += " twice" if twice and not (missing or unknown) else ""
        raise InputError(
            f"{path} {got}", expected=f"the columns {', '.join(KEYS)}", fix="rename columns, or leave others out"
        )
