"""A data set: a folder with pictures and `questions.jsonl`. Reads the rows; decodes no picture and knows no model.

A row is an object with `image` (a path inside the folder), `prompt`, `answers` (a list of accepted strings) and `task`;
`id` is optional and other keys are ignored. Empty lines are no rows. Whatever is wrong with a row is kept as a reason
beside its line number: one bad row spoils nothing else, and none is dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hired_edge.errors import InputError
from hired_edge.strict import one_line, show

QUESTIONS = "questions.jsonl"
_EXPECTED = f"a folder with {QUESTIONS} and its pictures"


@dataclass(frozen=True)
class Question:
    """A good row.

    Args:
        line: of `questions.jsonl`, from 1.
        image: as the row has it; for messages.
        picture: where it lies, links resolved: questions of one picture have the same.
        prompt, answers, task: as the row has them.
    """

    line: int
    image: str
    picture: Path
    prompt: str
    answers: tuple[str, ...]
    task: str


@dataclass(frozen=True, order=True)
class BadRow:
    """A row that cannot be answered, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Dataset:
    """The rows of a data set, in order, and what it is told from another by.

    Args:
        sha256: of `questions.jsonl` and of the contents of every good row's picture.
        questions: the good rows.
        bad_rows: the others.
    """

    sha256: str
    questions: list[Question]
    bad_rows: list[BadRow]


def read_dataset(folder: Path) -> Dataset:
    """Reads `questions.jsonl`, and every picture once for the data set's identity.

    Raises:
        InputError: no such folder or file, or no good row in it.
    """
    try:
        data = (folder / QUESTIONS).read_bytes()
    except OSError as error:
        got = f"{folder / QUESTIONS} cannot be read ({error.strerror})"
        raise InputError(got, expected=_EXPECTED, fix="pass another DATASET") from None
    root = folder.resolve()
    questions: list[Question] = []
    bad: list[BadRow] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            try:
                questions.append(_question(number, line, root))
            except _BadRowError as error:
                bad.append(BadRow(number, str(error)))
    check_any_good(questions, bad)
    pictures = {picture: _sha256(picture) for picture in dict.fromkeys(each.picture for each in questions)}
    parts = [hashlib.sha256(data).digest(), *(pictures[each.picture] for each in questions)]
    return Dataset(hashlib.sha256(b"".join(parts)).hexdigest(), questions, bad)


def check_any_good(questions: list[Question], bad: list[BadRow]) -> None:
    """Raises InputError where no row is left to be answered."""
    if not questions:
        first = f"; line {bad[0].line}: {bad[0].reason}" if bad else ""
        raise InputError(
            f"{QUESTIONS} has no row that can be answered ({len(bad)} bad{first})",
            expected="at least one good row",
            fix="mend the data set",
        )


def _sha256(picture: Path) -> bytes:
    """Of the file's bytes; of none where it cannot be read, which is reported when the picture is opened."""
    try:
        return hashlib.sha256(picture.read_bytes()).digest()
    except OSError:
        return hashlib.sha256().digest()


class _BadRowError(Exception):
    """What is wrong with a row."""


def _question(number: int, line: bytes, root: Path) -> Question:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _BadRowError(f"not JSON ({one_line(error)})") from None
    if not isinstance(row, dict):
        raise _BadRowError(f"{show(row)} is not an object")
    answers = _value(row, "answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise _BadRowError("answers is not a list of at least one string")
    image = _text(row, "image")
    return Question(number, image, _picture(image, root), _text(row, "prompt"), tuple(answers), _text(row, "task"))


def _value(row: dict[str, Any], key: str) -> Any:
    if key not in row:
        raise _BadRowError(f"{key} is missing")
    return row[key]


def _text(row: dict[str, Any], key: str) -> str:
    text = _value(row, key)
    if not isinstance(text, str):
        raise _BadRowError(f"{key} is {show(text)}, not a string")
    if not text.strip():
        raise _BadRowError(f"{key} is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _BadRowError(f"{key} holds half a character (a lone surrogate)")
    return text


def _picture(image: str, root: Path) -> Path:
    try:
        path = (root / image).resolve()
        inside, found = path.is_relative_to(root), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise _BadRowError(f"{show(image)} cannot be a path ({one_line(error)})") from None
    if not inside:
        raise _BadRowError(f"{show(image)} lies outside the data set")
    if not found:
        raise _BadRowError(f"{show(image)} is not there")
    return path
