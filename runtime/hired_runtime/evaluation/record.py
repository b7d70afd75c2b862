"""`answers.jsonl`: what was answered so far, appended picture by picture, so that an interrupted run can go on.

The first line says what run it belongs to; answers of another run are never mixed in. A last line that was torn off is
dropped; a file that is refused is left as it was. It holds texts, not scores, and knows nothing of models.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hired_edge.errors import InputError
from hired_runtime.evaluation.files import remove_report
from hired_runtime.evaluation.settings import Key

ANSWERS = "answers.jsonl"
_FORMAT = 2
_FIX = "pass another --report, or --restart to throw its answers away"


@dataclass(frozen=True)
class Identity:
    """What answers depend on beside the question and the setting. Scores are not kept, so the metric is none of it.

    Args:
        bundle: the manifest's digest.
        questions: the data set's sha256.
        max_new_tokens: as asked for.
        engine: the library's name and version.
        hired_edge: the version.
    """

    bundle: str
    questions: str
    max_new_tokens: int
    engine: str
    hired_edge: str


class Record:
    """An open `answers.jsonl`; a context manager.

    Args:
        folder: where it lies or is to lie; made if it is not there.
        identity: of the run.
        restart: throw away what is there, and the report beside it.

    Attributes:
        answers: (line of the question, key of the setting) -> the answer's text, and the picture's visual tokens.

    Raises:
        InputError: it belongs to another run, is damaged before its end, is in use, or cannot be read or written.
    """

    def __init__(self, folder: Path, identity: Identity, *, restart: bool = False) -> None:
        self.answers: dict[tuple[int, Key], tuple[str, int]] = {}
        self._path = folder / ANSWERS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(self._path, "a+")
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._lock()
            if restart:
                remove_report(folder)  # first: no report may stay beside answers that it is not of
                self._file.truncate(0)
            self._read(identity)
        except OSError as error:
            self._file.close()
            raise self._unusable(error) from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, answers: Iterable[tuple[int, Key, str, int]]) -> None:
        """Appends answers (line, key, text, visual tokens) and sees them onto the disk.

        Raises:
            InputError: they cannot be written.
        """
        answers = list(answers)
        rows = [
            {"line": line, **key._asdict(), "visual_tokens": visual, "text": text}
            for line, key, text, visual in answers
        ]
        try:
            self._append(rows)
        except OSError as error:
            raise self._unusable(error) from None
        self.answers.update({(line, key): (text, visual) for line, key, text, visual in answers})

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process is writing {self._path}",
                expected="one run a report folder",
                fix="wait for it, or pass another --report",
            ) from None

    def _read(self, identity: Identity) -> None:
        self._file.seek(0)
        whole, newline, torn = self._file.readall().rpartition(b"\n")
        header = {"format": _FORMAT, **asdict(identity)}
        if not newline:
            if not _line(header).startswith(torn):
                raise self._foreign()
            self._file.truncate(0)
            self._append([header])
            return
        first, *rest = whole.split(b"\n")
        self._check_header(_parsed(first), header)
        for number, line in enumerate(rest, 2):
            match _parsed(line):
                case {"line": int(at), "visual_tokens": int(visual), "text": str(text), **key} if key.keys() == set(
                    Key._fields
                ):
                    self.answers[at, Key(**key)] = text, visual
                case _:
                    raise InputError(f"{self._path} is damaged at line {number}", expected="an answer", fix=_FIX)
        if torn:
            self._file.truncate(len(whole) + len(newline))

    def _check_header(self, found: Any, header: dict[str, Any]) -> None:
        if not isinstance(found, dict) or set(found) != set(header):
            raise self._foreign()
        for name, value in header.items():
            if found[name] != value:
                short = [str(each)[:12] for each in (found[name], value)]
                got = f"{self._path} holds answers of another run ({name} {short[0]})"
                raise InputError(got, expected=f"{name} {short[1]}, as asked for now", fix=_FIX)

    def _append(self, rows: list[dict[str, Any]]) -> None:
        data = memoryview(b"".join(map(_line, rows)))
        while data:  # a full disk may take a part
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())

    def _foreign(self) -> InputError:
        return InputError(f"{self._path} is not a record of answers", expected="one, or no file", fix=_FIX)

    def _unusable(self, error: OSError) -> InputError:
        return InputError(
            f"{self._path} cannot be written ({error.strerror})",
            expected="a folder for the report, with room",
            fix="pass another --report",
        )


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
