"""`answers.jsonl`: a line for each row of the requests, in their order, written whole once every row has one.

Until then each line waits in a journal beside it, in whatever order rows were finished; afterwards a small mark says
what run it is of. Both are hidden files. Answers are never asked for twice; errors are tried again by a run that goes
on, since what was wrong (a picture that was not there) may have been mended. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hired_edge.errors import InputError
from hired_runtime.journal import Journal, Words, check_same_run
from hired_runtime.whole import whole

_FORMAT = 1
_WORDS = Words("a journal of answers", "an answer", "a folder that can be written to, with room", "-o")
_SYNC_EVERY = 64
_NONE = -1


class Answers:
    """Locks the output and reads what an earlier run has left, unless `restart`. A context manager.

    Eight bytes a row are kept.

    Args:
        output: where the answers go.
        identity: what they depend on beside the rows' numbers, plain JSON; `...` for a value that `begin` tells.
        rows: of the requests.
        restart: throw away what an earlier run has left, once this one begins.

    Attributes:
        held: rows that are answered.
        errors: rows that this run has refused; of a finished run, those that it had.
        finished: whether `output` is there and is what a run of this identity has written.

    Raises:
        InputError: nothing can be written there; another run's answers are there, or a file that no run has written.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], rows: int, *, restart: bool = False) -> None:
        self._output = Path(os.path.realpath(output))
        self._mark = self._output.with_name(f".{self._output.name}.run")
        self._begins = array("q", [_NONE]) * (rows + 1)
        self._restart, self._added = restart, 0
        self.held = self.errors = 0
        self._journal = Journal(self._output.with_name(f".{self._output.name}.journal"), _WORDS)
        try:
            self.finished = self._look({"format": _FORMAT, **identity})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What was added stays; a journal that holds nothing does not."""
        if self._journal.empty:
            self._journal.path.unlink(missing_ok=True)
        self._journal.close()

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Before the first row is added.

        Args:
            identity: as at first, with every value.

        Raises:
            InputError: the journal belongs to another run; what is to be thrown away cannot be.
        """
        self._identity = {"format": _FORMAT, **identity}
        if self._restart:
            try:
                for path in (self._output, self._mark):
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise _unusable(self._output, error) from None
            self._journal.clear()
        self._journal.begin(self._identity)

    def missing(self, row: int) -> bool:
        """Whether the row is still to be asked."""
        return self._begins[row] == _NONE

    def add(self, row: int, answer: Mapping[str, Any]) -> None:
        """Keeps a row's line: an answer, or an error where it has the key "error".

        Raises:
            InputError: it cannot be written.
        """
        assert self.missing(row)
        self._added += 1
        (begin,) = self._journal.append([{"row": row, "answer": answer}], sync=self._added % _SYNC_EVERY == 0)
        self._begins[row] = begin
        if "error" in answer:
            self.errors += 1
        else:
            self.held += 1

    def finish(self) -> None:
        """Writes the output, whole, and removes the journal. Every row was added.

        Raises:
            InputError: it cannot be written; the journal stays.
        """
        assert _NONE not in self._begins[1:]
        try:
            with whole(self._output) as partial:
                digest = hashlib.sha256()
                with partial.open("wb") as file:
                    for line in self._lines():
                        digest.update(line)
                        file.write(line)
                mark = {"run": self._identity, "sha256": digest.hexdigest(), "errors": self.errors}
                with whole(self._mark) as partial_mark:  # first, so that no output is ever without its mark
                    partial_mark.write_text(json.dumps(mark) + "\n")
            self._journal.path.unlink()
        except OSError as error:
            raise _unusable(self._output, error) from None

    def _lines(self) -> Iterator[bytes]:
        for held in self._journal.lines(self._begins[1:]):
            yield json.dumps(held["answer"]).encode() + b"\n"

    def _look(self, identity: Mapping[str, Any]) -> bool:
        """Reads what is there; whether that is a finished run's output."""
        if not self._output.exists():
            if not self._restart:
                self._journal.load(identity, self._take)
            return False
        mark = _read_mark(self._mark)
        if mark is None or not self._output.is_file():
            raise InputError(
                f"{self._output} is there already, and no run has written it",
                expected="no file, or the answers of an earlier run",
                fix="pass another -o, or move it away",
            )
        if self._restart:
            return False
        check_same_run(self._output, mark["run"], identity, _WORDS)
        if mark["sha256"] != _sha256(self._output):
            raise InputError(
                f"{self._output} was changed since its run has written it",
                expected="it as it was, or no file",
                fix="pass another -o, move it away, or --restart to throw it away",
            )
        self.errors, self.held = mark["errors"], len(self._begins) - 1 - mark["errors"]
        self._journal.clear()  # of a run that was killed as it ended
        return True

    def _take(self, line: Any, begin: int) -> bool:
        match line:
            case {"row": int(row), "answer": {"id": _, "text": str()}} if 0 < row < len(self._begins):
                self.held += self.missing(row)
                self._begins[row] = begin
                return True
            case {"row": int(row), "answer": {"id": _, "error": str()}}:
                return 0 < row < len(self._begins)
            case _:
                return False


def _read_mark(path: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    match mark:
        case {"run": dict(), "sha256": str(), "errors": int()}:
            return mark
        case _:
            return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(2**20):
                digest.update(data)
    except OSError as error:
        raise _unusable(path, error) from None
    return digest.hexdigest()


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be written ({error.strerror})",
        expected="a file that can be written to, with room",
        fix="mend that and run the same command again, or pass another -o",
    )
