"""`requests.jsonl`: an object a line, {"id", "image", "prompt"}. Reads them one by one; opens no picture.

`id` is a string or an integer, `image` a path, a list of paths, null or missing; paths are relative to the file's
folder. Empty lines are no rows. A row that cannot be asked is a `BadRow` in its place: one spoils no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from hired_edge.errors import BundleError, InputError
from hired_edge.strict import loads, show

LONGEST_ROW = 2**20
"""Bytes of a line."""

KEYS = ("id", "image", "prompt")
_EXPECTED = "a file of JSON lines, {id, image, prompt} each"

Id = str | int


class Row(NamedTuple):
    """A row that can be asked.

    Args:
        number: among the rows, from 1.
        id: as the row has it.
        images: where its pictures are.
        prompt: the question.
    """

    number: int
    id: Id
    images: tuple[Path, ...]
    prompt: str


class BadRow(NamedTuple):
    """A row that cannot be asked, and why, on one line. `id`: None where it has none that could be told."""

    number: int
    id: Id | None
    reason: str


class Requests:
    """Opens a file and reads it once, for what must be known before the first row is asked. A context manager.

    Eight bytes a row are kept while it is opened.

    Attributes:
        sha256: of the file.
        count: of its rows, good and bad.

    Raises:
        InputError: it is not there, is no file, or has no rows.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._folder = path, path.parent
        self._file = open_regular(path)
        try:
            digest, ids, self.count = hashlib.sha256(), array("Q"), 0
            for _, row in self._parse(digest):
                self.count += 1
                if row.id is not None:
                    ids.append(_hash(row.id))
        except BaseException:
            self._file.close()
            raise
        self.sha256 = digest.hexdigest()
        if not self.count:
            self._file.close()
            raise InputError(f"{path} has no rows", expected=_EXPECTED, fix="write at least one")
        hashes, counts = np.unique(np.frombuffer(ids, np.uint64), return_counts=True)
        self._suspects = {int(each) for each in hashes[counts > 1]}

    def __enter__(self) -> Requests:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def is_file(self, path: Path) -> bool:
        """Whether `path` is this file, by whatever name."""
        return path.exists() and os.path.samestat(path.stat(), os.fstat(self._file.fileno()))

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row, in order. An id belongs to the first row that has it.

        Raises (at the end):
            InputError: the file is another than when it was opened.
        """
        return (row for _, row in self.placed())

    def placed(self) -> Iterator[tuple[int, Row | BadRow]]:
        """As `rows`, each with where it begins: what `rows_from` takes."""
        digest, first = hashlib.sha256(), dict[Id, int]()
        for place, row in self._parse(digest):
            if row.id is not None and _hash(row.id) in self._suspects:
                owner = first.setdefault(row.id, row.number)
                if owner != row.number and isinstance(row, Row):
                    row = BadRow(row.number, row.id, f"id {show(row.id)} is that of row {owner} already")
            yield place, row
        if digest.hexdigest() != self.sha256:
            raise InputError(
                f"{self.path} was changed while it was read", expected="a file that stays as it is", fix="begin again"
            )

    def _parse(self, digest: Any) -> Iterator[tuple[int, Row | BadRow]]:
        return rows_from(self._file, 0, 1, self._folder, digest)


def rows_from(
    file: BinaryIO, place: int, number: int, folder: Path, digest: Any = None
) -> Iterator[tuple[int, Row | BadRow]]:
    """Where each row begins, and the row. Ids that stand twice are not looked for.

    Args:
        place: the byte at which the first one begins.
        number: of that row.
        folder: that paths are relative to.
        digest: gains every byte that is read.
    """
    file.seek(place)
    for begin, line in _lines(file, place, digest):
        if line is None or line.strip():
            yield begin, _row(number, line, folder)
            number += 1


def open_regular(path: Path) -> BinaryIO:
    """Opens a file of requests for reading.

    Raises:
        InputError: it cannot be read, or is a pipe or the like.
    """
    try:
        file = path.open("rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path} cannot be read ({reason})", expected=_EXPECTED, fix="check the path") from None
    raise InputError(f"{path} is no regular file", expected=_EXPECTED, fix="save the requests to a file first")


def _lines(file: BinaryIO, place: int, digest: Any) -> Iterator[tuple[int, bytes | None]]:
    """Where each line begins, and the line: without a byte order mark, None for one that is too long."""

    def read() -> bytes:
        line = file.readline(LONGEST_ROW)
        if digest is not None:
            digest.update(line)
        return line

    begin, line = place, read()
    end = begin + len(line)
    if begin == 0:
        line = line.removeprefix(b"\xef\xbb\xbf")
    while line:
        whole = line
        while not line.endswith(b"\n") and (line := read()):
            end += len(line)
            whole = None
        yield begin, whole
        begin, line = end, read()
        end += len(line)


def _hash(row_id: Id) -> int:
    return int.from_bytes(hashlib.blake2b(json.dumps(row_id).encode(), digest_size=8).digest(), "little")


class _BadRowError(Exception):
    """What is wrong with a row."""


def _row(number: int, line: bytes | None, folder: Path) -> Row | BadRow:
    try:
        return row_of(number, _object(line), folder)
    except _BadRowError as error:
        return BadRow(number, None, str(error))


def row_of(number: int, fields: dict[str, Any], folder: Path) -> Row | BadRow:
    """The row that these keys and values make."""
    row_id = None
    try:
        row_id = _id(fields)
        unknown = [key for key in fields if key not in KEYS]
        if unknown:
            raise _BadRowError(f"unknown key {show(unknown[0])}; expected only {', '.join(KEYS)}")
        return Row(number, row_id, _images(fields, folder), _text("prompt", fields.get("prompt", ...)))
    except _BadRowError as error:
        return BadRow(number, row_id, str(error))


def _object(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise _BadRowError(f"longer than {LONGEST_ROW} bytes")
    try:
        row = loads(line.decode("utf-8"), "the row")
    except UnicodeDecodeError as error:
        raise _BadRowError(f"not UTF-8 at byte {error.start}") from None
    except BundleError as error:
        raise _BadRowError(error.got) from None
    if not isinstance(row, dict):
        raise _BadRowError(f"{show(row)} is not an object")
    return row


def _id(row: dict[str, Any]) -> Id:
    value = row.get("id", ...)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _text("id", value, "a string or an integer")


def _images(row: dict[str, Any], folder: Path) -> tuple[Path, ...]:
    value = row.get("image")
    if value is None:
        return ()
    paths = value if isinstance(value, list) else [value]
    return tuple(folder / _path(path) for path in paths)


def _path(value: Any) -> str:
    path = _text("image", value, "a path, a list of paths or null")
    if path.lower().startswith(("http://", "https://", "data:")):
        raise _BadRowError(f"image is the address {show(path)}, not a file on this machine")
    return path


def _text(key: str, value: Any, expected: str = "a string") -> str:
    if value is ...:
        raise _BadRowError(f"{key} is missing")
    if not isinstance(value, str):
        raise _BadRowError(f"{key} is {show(value)}, not {expected}")
    if not value.strip():
        raise _BadRowError(f"{key} is empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _BadRowError(f"{key} holds half a character (a lone surrogate)")
    return value
