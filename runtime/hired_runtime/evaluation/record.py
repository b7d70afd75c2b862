"""`answers.jsonl`: what was answered so far, appended picture by picture, so that an interrupted run can go on.

The first line says what run it belongs to; answers of another run are never mixed in. A last line that was torn off is
dropped; a file that is refused is left as it was. It holds texts, not scores, and knows nothing of models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hired_runtime.evaluation.files import remove_report
from hired_runtime.evaluation.settings import Key
from hired_runtime.journal import Journal, Words

ANSWERS = "answers.jsonl"
_FORMAT = 2
_WORDS = Words("a record of answers", "an answer", "a folder for the report, with room", "--report")


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
        with contextlib.suppress(OSError):  # the journal says it
            folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder / ANSWERS, _WORDS)
        header = {"format": _FORMAT, **asdict(identity)}
        try:
            if restart:
                remove_report(folder)  # first: no report may stay beside answers that it is not of
                self._journal.clear()
            else:
                self._journal.load(header, self._take)
            self._journal.begin(header)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def add(self, answers: Iterable[tuple[int, Key, str, int]]) -> None:
        """Appends answers (line, key, text, visual tokens) and sees them onto the disk.

        Raises:
            InputError: they cannot be written.
        """
        answers = list(answers)
        self._journal.append(
            {"line": line, **key._asdict(), "visual_tokens": visual, "text": text}
            for line, key, text, visual in answers
        )
        self.answers.update({(line, key): (text, visual) for line, key, text, visual in answers})

    def _take(self, row: Any, _: int) -> bool:
        match row:
            case {"line": int(at), "visual_tokens": int(visual), "text": str(text), **key} if _is_key(key):
                self.answers[at, Key(**key)] = text, visual
                return True
            case _:
                return False


def _is_key(fields: dict[str, Any]) -> bool:
    return fields.keys() == set(Key._fields) and all(isinstance(each, str | None) for each in fields.values())
