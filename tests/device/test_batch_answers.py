"""What a batch keeps: any order of rows and any cut of the journal give the same output, and nothing is asked twice."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.errors import InputError
from hired_runtime.batch.answers_file import Answers
from tests.tiny.children import largest_file

IDENTITY = {"bundle": "digest", "requests": "sha256", "policy": "hired", "engine": "engine 1.0"}
KNOWN = {**IDENTITY, "engine": ...}
JOURNAL, MARK = ".answers.jsonl.journal", ".answers.jsonl.run"


def line(row: int, bad: bool = False) -> dict[str, Any]:
    """What a faked model says to a row."""
    return {"id": f"\u00e9{row}", "error": "no"} if bad else {"id": row, "text": "a\n\u2028" * row, "usage": {"n": row}}


def expected(rows: int, bad: frozenset[int] = frozenset()) -> bytes:
    return b"".join(json.dumps(line(row, row in bad)).encode() + b"\n" for row in range(1, rows + 1))


def opened(folder: Path, rows: int, restart: bool = False, **changes: Any) -> Answers:
    return Answers(folder / "answers.jsonl", {**KNOWN, **changes}, rows, restart=restart)


def finish(folder: Path, rows: int, **changes: Any) -> list[int]:
    """Asks what is missing; which rows that was."""
    with opened(folder, rows, **changes) as answers:
        assert not answers.finished
        answers.begin({**IDENTITY, **changes})
        asked = [row for row in range(1, rows + 1) if answers.missing(row)]
        for row in asked:
            answers.add(row, line(row))
        answers.finish()
    return asked


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), rows=st.integers(1, 6), bad=st.frozensets(st.integers(1, 6), max_size=2))
def test_any_order_and_any_cut_give_the_same_output(data: st.DataObject, rows: int, bad: frozenset[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal, asked = folder / JOURNAL, []
        for _ in range(data.draw(st.integers(0, 3))):
            with opened(folder, rows) as answers:
                answers.begin(IDENTITY)
                missing = [row for row in range(1, rows + 1) if answers.missing(row)]
                order = data.draw(st.permutations(missing))
                asked = order[: data.draw(st.integers(0, len(order)))]
                for row in asked:
                    answers.add(row, line(row, row in bad))
            content = journal.read_bytes()
            content = content[: data.draw(st.integers(0, len(content)))]
            journal.write_bytes(content)
        whole = [json.loads(each) for each in journal.read_bytes().split(b"\n")[1:-1]] if journal.exists() else []
        held = {each["row"] for each in whole if "text" in each["answer"]}
        with opened(folder, rows) as answers:
            assert answers.held == len(held)
            assert {row for row in range(1, rows + 1) if not answers.missing(row)} == held
            answers.begin(IDENTITY)
            for row in data.draw(st.permutations(sorted(set(range(1, rows + 1)) - held))):
                answers.add(row, line(row, row in bad))
            assert answers.held + answers.errors == rows
            answers.finish()
        assert (folder / "answers.jsonl").read_bytes() == expected(rows, bad)
        assert names(folder) == {"answers.jsonl", MARK}
        with opened(folder, rows) as answers:
            assert answers.finished
            assert answers.errors == len(bad & set(range(1, rows + 1)))
        assert names(folder) == {"answers.jsonl", MARK}


def test_errors_are_tried_again_by_a_run_that_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path, 3) as answers:
        answers.begin(IDENTITY)
        answers.add(3, line(3))
        answers.add(1, line(1, bad=True))
    assert finish(tmp_path, 3) == [1, 2]
    assert (tmp_path / "answers.jsonl").read_bytes() == expected(3)


@pytest.mark.parametrize("name", list(IDENTITY))
def test_answers_of_another_run_are_refused_unless_thrown_away(name: str, tmp_path: Path) -> None:
    with opened(tmp_path, 2) as answers:
        answers.begin(IDENTITY)
        answers.add(1, line(1))
    before = (tmp_path / JOURNAL).read_bytes()
    for finished in (False, True):
        with pytest.raises(InputError, match=rf"holds answers of another run \({name} .* or --restart to throw"):
            Answers(tmp_path / "answers.jsonl", {**KNOWN, name: "other"}, 2).begin({**IDENTITY, name: "other"})
        if not finished:
            assert (tmp_path / JOURNAL).read_bytes() == before
            assert finish(tmp_path, 2) == [2]
    assert finish(tmp_path, 2, restart=True, **{name: "other"}) == [1, 2]


def test_a_file_that_no_run_has_written_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("mine")
    for restart in (False, True):
        with pytest.raises(InputError, match="is there already, and no run has written it"):
            opened(tmp_path, 1, restart=restart)
    assert (tmp_path / "answers.jsonl").read_text() == "mine"
    assert names(tmp_path) == {"answers.jsonl"}
    (tmp_path / "answers.jsonl").unlink()
    (tmp_path / "answers.jsonl").mkdir()
    with pytest.raises(InputError, match="is there already"):
        opened(tmp_path, 1, restart=True)


def test_an_output_that_was_changed_is_refused_and_one_that_is_gone_is_made_again(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    finish(tmp_path, 2)
    output.write_bytes(expected(2)[:-1])
    with pytest.raises(InputError, match="was changed since its run has written it"):
        opened(tmp_path, 2)
    output.unlink()
    assert finish(tmp_path, 2) == [1, 2]
    output.unlink()
    assert finish(tmp_path, 2, policy="other") == [1, 2]  # nothing is there that could be lost


def test_a_run_that_is_killed_as_it_ends(tmp_path: Path) -> None:
    """Its mark is written, then the output, then the journal goes: whatever of that is done, nothing is asked again."""
    with opened(tmp_path, 2) as answers:
        answers.begin(IDENTITY)
        for row in (2, 1):
            answers.add(row, line(row))
        journal = (tmp_path / JOURNAL).read_bytes()
        answers.finish()
    (tmp_path / JOURNAL).write_bytes(journal)
    with opened(tmp_path, 2) as answers:
        assert answers.finished
    assert names(tmp_path) == {"answers.jsonl", MARK}
    (tmp_path / JOURNAL).write_bytes(journal)
    (tmp_path / "answers.jsonl").unlink()
    assert finish(tmp_path, 2) == []
    assert (tmp_path / "answers.jsonl").read_bytes() == expected(2)


@pytest.mark.parametrize(
    "damage",
    [
        b"{}",
        b"\0",
        b'{"row": 1, "answer": {"text": "a"}}',
        b'{"row": 3, "answer": {"id": 1, "text": "a"}}',
        b'{"row": 0, "answer": {"id": 1, "error": "a"}}',
        b'{"row": "1", "answer": {"id": 1, "text": "a"}}',
        b'{"row": 1, "answer": {"id": 1, "text": null}}',
    ],
)
def test_a_journal_that_is_damaged_before_its_end_is_refused(damage: bytes, tmp_path: Path) -> None:
    with opened(tmp_path, 2) as answers:
        answers.begin(IDENTITY)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(damage + b"\n" + json.dumps({"row": 1, "answer": line(1)}).encode() + b"\n")
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(InputError, match="damaged at line 2"):
        opened(tmp_path, 2)
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert finish(tmp_path, 2, restart=True) == [1, 2]


def test_one_run_an_output(tmp_path: Path) -> None:
    with opened(tmp_path, 1), pytest.raises(InputError, match="another process is writing"):
        opened(tmp_path, 1, restart=True)
    assert names(tmp_path) == set()


def test_a_full_disk_loses_only_what_did_not_fit(tmp_path: Path) -> None:
    with opened(tmp_path, 40) as answers:
        answers.begin(IDENTITY)
        answers.add(1, line(1))
        size = (tmp_path / JOURNAL).stat().st_size
        with largest_file(size + 30), pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
            answers.add(2, line(2))
    with opened(tmp_path, 40) as answers:
        assert answers.held == 1
        answers.begin(IDENTITY)
        for row in range(2, 41):
            answers.add(row, line(row))
        with largest_file(500), pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
            answers.finish()
    assert names(tmp_path) == {JOURNAL}
    assert finish(tmp_path, 40) == []


def test_an_output_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real" / "answers.jsonl")
    with Answers(tmp_path / "link.jsonl", KNOWN, 1) as answers:
        answers.begin(IDENTITY)
        answers.add(1, line(1))
        answers.finish()
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "real" / "answers.jsonl").read_bytes() == expected(1)
