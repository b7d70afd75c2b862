"""A file of JSON lines that grows while a run goes on, so that one that is interrupted can be taken up again.

The first line says what run the others belong to: lines of another run are never mixed in. A last line that was torn
off is dropped; a file that is refused is left as it was. One process at a time. Knows nothing of what its lines mean.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hired_edge.errors import InputError

_LONGEST_HEADER = 2**20

Take = Callable[[Any, int], bool]
"""Called with what a line holds and where it begins in the file; whether it is a line that may stand there."""


class Words(NamedTuple):
    """How a journal is spoken of in errors.

    Args:
        kind: "a record of answers".
        line: what one of its lines is: "an answer".
        place: what would have been right to write to.
        option: by which it is named: "--report".
    """

    kind: str
    line: str
    place: str
    option: str

    @property
    def fix(self) -> str:
        return f"pass another {self.option}, or --restart to throw its answers away"


class Journal:
    """Opens the file, which is made if it is not there, and locks it. A context manager.

    First `load` what is there or `clear` it, then `begin`, then `append`.

    Raises:
        InputError: it cannot be opened, or another process has it. So do the methods where it cannot be written.
    """

    def __init__(self, path: Path, words: Words) -> None:
        self.path, self._words = path, words
        self._header: dict[str, Any] | None = None
        self._torn = b""
        self._end = 0
        try:
            self._file = io.FileIO(path, "a+")
        except OSError as error:
            raise self.unusable(error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            if not isinstance(error, BlockingIOError):
                raise self.unusable(error) from None
            raise InputError(
                f"another process is writing {path}",
                expected=f"one run for each {words.option}",
                fix=f"wait for it, or pass another {words.option}",
            ) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def empty(self) -> bool:
        """Whether the file holds nothing at all."""
        return os.fstat(self._file.fileno()).st_size == 0

    def load(self, header: Mapping[str, Any], take: Take) -> None:
        """Reads what is there, line by line.

        Args:
            header: what the first line must say; `...` for a value that is not known before `begin`.
            take: gets every other line that is whole.

        Raises:
            InputError: it belongs to another run, or is damaged before its end.
        """
        try:
            self._load(header, take)
        except OSError as error:
            raise self.unusable(error) from None

    def clear(self) -> None:
        """Throws away what is there."""
        try:
            self._file.truncate(0)
        except OSError as error:
            raise self.unusable(error) from None
        self._header, self._torn, self._end = None, b"", 0

    def begin(self, header: Mapping[str, Any]) -> None:
        """Writes the first line, or holds the one that is there against `header`.

        Raises:
            InputError: it belongs to another run.
        """
        if self._header is not None:
            self._check(self._header, header)
        elif _line(header).startswith(self._torn):
            self.clear()
            self.append([header])
        else:
            raise self._foreign()

    def append(self, rows: Iterable[Mapping[str, Any]], *, sync: bool = True) -> list[int]:
        """Adds lines, and returns where each begins. A line that is written survives this process.

        Args:
            sync: see it onto the disk, with all before it: then it survives the machine too.
        """
        lines = list(map(_line, rows))
        data = memoryview(b"".join(lines))
        try:
            while data:  # a full disk may take a part
                data = data[self._file.write(data) :]
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self.unusable(error) from None
        begins = []
        for line in lines:
            begins.append(self._end)
            self._end += len(line)
        return begins

    def lines(self, begins: Iterable[int]) -> Iterator[Any]:
        """What the lines hold that begin there."""
        with Path(self.path).open("rb") as file:
            for begin in begins:
                file.seek(begin)
                yield json.loads(file.readline())

    def unusable(self, error: OSError) -> InputError:
        """The error for whoever writes beside it, too."""
        return InputError(
            f"{self.path} cannot be written ({error.strerror})",
            expected=self._words.place,
            fix=f"pass another {self._words.option}",
        )

    def _load(self, header: Mapping[str, Any], take: Take) -> None:
        self._file.seek(0)
        reader = io.BufferedReader(self._file, 2**20)
        try:
            first = reader.readline(_LONGEST_HEADER)
            if not first.endswith(b"\n"):
                self._torn = first
                if len(first) == _LONGEST_HEADER:
                    raise self._foreign()
                return
            self._header = self._check(_parsed(first), header)
            self._end = len(first)
            for number, line in enumerate(reader, 2):
                if not line.endswith(b"\n"):
                    break
                if not take(_parsed(line), self._end):
                    got = f"{self.path} is damaged at line {number}"
                    raise InputError(got, expected=self._words.line, fix=self._words.fix)
                self._end += len(line)
        finally:
            reader.detach()
        self._file.truncate(self._end)

    def _check(self, found: Any, header: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(found, dict) or set(found) != set(header):
            raise self._foreign()
        check_same_run(self.path, found, header, self._words)
        return found

    def _foreign(self) -> InputError:
        return InputError(f"{self.path} is not {self._words.kind}", expected="one, or no file", fix=self._words.fix)


def check_same_run(path: Path, found: Mapping[str, Any], header: Mapping[str, Any], words: Words) -> None:
    """Raises InputError where a header that was found differs from `header`, but for values that are `...`."""
    for name, value in header.items():
        if value is not ... and found.get(name) != value:
            short = [str(each)[:12] for each in (found.get(name), value)]
            raise InputError(
                f"{path} holds answers of another run ({name} {short[0]})",
                expected=f"{name} {short[1]}, as asked for now",
                fix=words.fix,
            )


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
