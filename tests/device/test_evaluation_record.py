"""What an evaluation keeps: the record of answers, whose it is, and what becomes of one that is torn or foreign."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hired_edge.errors import InputError
from hired_runtime.evaluation.record import ANSWERS, Identity, Record
from hired_runtime.evaluation.settings import STOCK, Key
from tests.tiny.children import largest_file

IDENTITY = Identity("digest", "questions", 48, "engine 1.0", "0.1.0")
KEY = Key("hired", "20%", "1/2")


def test_a_record_keeps_what_it_was_given(tmp_path: Path) -> None:
    other = KEY._replace(newlines="none", partitions="base", positions="original")
    answers = {
        (1, KEY): ('a "card"\n', 64),
        (2, STOCK): ("\ufffd\u00e9\ud83c", 320),
        (1, STOCK): ("", 0),
        (1, other): ("b", 13),
    }
    with Record(tmp_path / "deep" / "report", IDENTITY) as record:
        record.add([(line, key, *kept) for (line, key), kept in answers.items()])
        assert record.answers == answers
    with Record(tmp_path / "deep" / "report", IDENTITY) as record:
        assert record.answers == answers
    with Record(tmp_path / "deep" / "report", IDENTITY, restart=True) as record:
        assert record.answers == {}


@pytest.mark.parametrize("change", ["bundle", "questions", "max_new_tokens", "engine", "hired_edge"])
def test_answers_of_another_run_are_refused_and_kept(change: str, tmp_path: Path) -> None:
    with Record(tmp_path, IDENTITY) as record:
        record.add([(1, KEY, "a card", 64)])
    before = (tmp_path / ANSWERS).read_bytes()
    other = dataclasses.replace(IDENTITY, **{change: 3 if change == "max_new_tokens" else "other"})
    with pytest.raises(
        InputError, match=rf"another run \({change} .*as asked for now; pass another --report, or --res"
    ):
        Record(tmp_path, other)
    assert (tmp_path / ANSWERS).read_bytes() == before
    with Record(tmp_path, other, restart=True) as record:
        assert record.answers == {}


def row(**changes: Any) -> bytes:
    """A line of the record, changed; a value of ... is left out."""
    sound = {"line": 1, **KEY._asdict(), "visual_tokens": 64, "text": "a"}
    return json.dumps({name: value for name, value in {**sound, **changes}.items() if value is not ...}).encode()


def test_a_sound_row_is_read(tmp_path: Path) -> None:
    """The rows that are refused below differ from it in one value each."""
    (tmp_path / ANSWERS).write_bytes(header(tmp_path) + row() + b"\n")
    with Record(tmp_path, IDENTITY) as record:
        assert record.answers == {(1, KEY): ("a", 64)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}", "damaged at line 2"),
        (b"\0\0\0", "damaged at line 2"),
        (b'{"line": 1, "policy": "hired", "budget": "20%", "text": "a"}', "damaged at line 2"),
        (row(alpha=...), "damaged at line 2"),
        (row(mine=1), "damaged at line 2"),
        (row(line="1"), "damaged at line 2"),
        (row(visual_tokens=None), "damaged at line 2"),
        (row(text=3), "damaged at line 2"),
    ],
)
def test_a_record_that_is_damaged_before_its_end_is_refused(line: bytes, message: str, tmp_path: Path) -> None:
    with Record(tmp_path, IDENTITY):
        pass
    with (tmp_path / ANSWERS).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(InputError, match=message):
        Record(tmp_path, IDENTITY)
    (tmp_path / ANSWERS).write_bytes(line + b"\n")
    with pytest.raises(InputError, match="is not a record of answers"):
        Record(tmp_path, IDENTITY)


def test_one_run_a_folder(tmp_path: Path) -> None:
    with Record(tmp_path, IDENTITY), pytest.raises(InputError, match="another process is writing"):
        Record(tmp_path, IDENTITY, restart=True)
    with Record(tmp_path, IDENTITY):
        pass


def test_a_record_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Record(tmp_path / "file", IDENTITY)
    (tmp_path / ANSWERS).mkdir()
    with pytest.raises(InputError, match=r"cannot be written \(Is a directory\)"):
        Record(tmp_path, IDENTITY)


def test_a_disk_that_fills_up_loses_only_what_did_not_fit(tmp_path: Path) -> None:
    with Record(tmp_path, IDENTITY) as record:
        record.add([(1, KEY, "a card", 64)])
        size = (tmp_path / ANSWERS).stat().st_size
        with largest_file(size + 250), pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
            record.add([(2, KEY, "another card", 64), (3, KEY, "a third card", 64)])
    assert (tmp_path / ANSWERS).stat().st_size == size + 250  # the third answer is torn
    with Record(tmp_path, IDENTITY) as record:
        assert record.answers == {(1, KEY): ("a card", 64), (2, KEY): ("another card", 64)}


def header(folder: Path) -> bytes:
    with Record(folder, IDENTITY):
        pass
    return (folder / ANSWERS).read_bytes()


def test_a_torn_header_is_written_anew(tmp_path: Path) -> None:
    whole = header(tmp_path)
    for cut in range(len(whole)):
        (tmp_path / ANSWERS).write_bytes(whole[:cut])
        assert header(tmp_path) == whole


@pytest.mark.parametrize(
    "foreign", [b'{"mine": 1}', b'{"mine": 1}\nrest', b"\n", b"\0", b'{"format": 1, "bundle": "other']
)
def test_a_file_of_another_kind_is_refused_and_kept(foreign: bytes, tmp_path: Path) -> None:
    (tmp_path / ANSWERS).write_bytes(foreign)
    with pytest.raises(InputError, match="is not a record of answers"):
        Record(tmp_path, IDENTITY)
    assert (tmp_path / ANSWERS).read_bytes() == foreign


def test_a_torn_tail_is_cut_only_from_a_record_that_is_taken(tmp_path: Path) -> None:
    whole = header(tmp_path)
    (tmp_path / ANSWERS).write_bytes(whole + b'{"line": 1, "pol')
    with pytest.raises(InputError, match="another run"):
        Record(tmp_path, dataclasses.replace(IDENTITY, bundle="other"))
    assert (tmp_path / ANSWERS).read_bytes() == whole + b'{"line": 1, "pol'
    assert header(tmp_path) == whole
    (tmp_path / ANSWERS).write_bytes(whole + b'{}\n{"line": 1, "pol')
    with pytest.raises(InputError, match="damaged at line 2"):
        Record(tmp_path, IDENTITY)
    assert (tmp_path / ANSWERS).read_bytes() == whole + b'{}\n{"line": 1, "pol'


def test_a_restart_throws_the_report_away_once_the_folder_is_its_own(tmp_path: Path) -> None:
    report = [tmp_path / name for name in ("report.json", "report.md", "accuracy.png")]
    for path in report:
        path.write_text("of an earlier run")
    with Record(tmp_path, IDENTITY), pytest.raises(InputError, match="another process is writing"):
        Record(tmp_path, IDENTITY, restart=True)
    assert all(path.exists() for path in report)
    with Record(tmp_path, IDENTITY, restart=True):
        assert [path.name for path in tmp_path.iterdir()] == [ANSWERS]


def test_a_report_that_cannot_be_thrown_away_keeps_its_answers(tmp_path: Path) -> None:
    with Record(tmp_path, IDENTITY) as record:
        record.add([(1, KEY, "a card", 64)])
    (tmp_path / "report.json").mkdir()
    with pytest.raises(InputError, match=r"report\.json cannot be removed \(.*; pass another --report"):
        Record(tmp_path, IDENTITY, restart=True)
    with Record(tmp_path, IDENTITY) as record:
        assert record.answers == {(1, KEY): ("a card", 64)}
