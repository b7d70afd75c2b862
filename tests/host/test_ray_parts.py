"""What a batch on a cluster reads and writes: parts are the file's rows, and no crash costs or doubles one."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.errors import BundleError, InputError
from hired_runtime.batch.requests_file import Requests
from hired_runtime.ray_batch.messages import Said, Unit
from hired_runtime.ray_batch.parquet_requests import ParquetRequests
from hired_runtime.ray_batch.parts import Part, cut, read_part, rows_of_a_part
from hired_runtime.ray_batch.parts_folder import COMMITS, PartsFolder

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ids = words | st.integers(-(2**70), 2**70)
rows = st.fixed_dictionaries({"id": ids, "prompt": words}, optional={"image": st.none() | words | st.lists(words)})
junk = st.sampled_from([b"", b"  ", b"{", b"\xff", b"null", b"[" * 40, b'{"id": 1}'])
line = rows.map(json.dumps).map(str.encode) | junk


@settings(max_examples=50, deadline=None)
@given(lines=st.lists(line, min_size=1, max_size=12), size=st.integers(1, 5), mark=st.booleans(), end=st.booleans())
def test_the_parts_of_json_lines_are_its_rows(lines: list[bytes], size: int, mark: bool, end: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "requests.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" * mark + b"\n".join([b'{"id": 0, "prompt": "?"}', *lines]) + b"\n" * end)
        with Requests(path) as requests:
            whole, found = list(requests.rows()), cut(requests, size)
        assert [row for part in found.parts for row in read_part(path, part)] == whole
        assert [number for part in found.parts for number in part.rows] == [row.number for row in whole]
        assert all(part.count == size for part in found.parts[:-1])
        assert found.integers == all(not isinstance(row.id, str) and -(2**63) <= (row.id or 0) < 2**63 for row in whole)
        for part in found.parts:
            assert Unit.decoded(Unit(part, [part.first]).encoded()) == Unit(part, [part.first])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), size=st.integers(1, 5), group=st.integers(1, 7))
def test_a_parquet_file_is_read_as_the_same_rows_in_json(data: st.DataObject, size: int, group: int) -> None:
    kind = data.draw(st.sampled_from([words, st.integers(-(2**63), 2**63 - 1)]))
    several = data.draw(st.booleans())
    fields = {
        "id": kind,
        "prompt": words | st.none(),
        "image": st.none() | (st.lists(words, max_size=2) if several else words),
    }
    asked = data.draw(st.lists(st.fixed_dictionaries(fields), min_size=1, max_size=12))
    image = pyarrow.list_(pyarrow.string()) if several else pyarrow.string()
    identity = pyarrow.int64() if kind is not words else pyarrow.string()
    schema = pyarrow.schema({"id": identity, "prompt": pyarrow.string(), "image": image})
    with tempfile.TemporaryDirectory() as name:
        parquet, text = Path(name) / "requests.parquet", Path(name) / "requests.jsonl"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(asked, schema), parquet, row_group_size=group)
        text.write_text("".join(json.dumps(row) + "\n" for row in asked))
        with Requests(text) as requests:
            expected = list(requests.rows())
        with ParquetRequests(parquet) as requests:
            assert requests.count == len(asked)
            assert list(requests.rows()) == expected
            found = cut(requests, size)
        assert [row for part in found.parts for row in read_part(parquet, part)] == expected


def test_another_file_under_the_same_path_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"id": 1, "prompt": "?"}\n{"id": 2, "prompt": "?"}\n')
    with Requests(path) as requests:
        parts = cut(requests, 1).parts
    path.write_text('{"id": 1, "prompt": "?"}\n{"id": 2, "prompt": "!"}\n')
    assert len(read_part(path, parts[0])) == 1
    with pytest.raises(InputError, match="is another file than the one that the run has begun with"):
        read_part(path, parts[1])
    path.write_text("")
    with pytest.raises(InputError, match="is another file"):
        read_part(path, parts[0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "prompt": ["?"], "temperature": [1.0]}, "has the column 'temperature'"),
        ({"id": [1], "image": ["a.png"]}, "has no column 'prompt'"),
        ({"prompt": ["?"]}, "has no column 'id'"),
        ({"id": [], "prompt": []}, "has no rows"),
        (None, "cannot be read as Parquet"),
    ],
)
def test_what_is_no_parquet_file_of_requests(
    columns: dict[str, list[Any]] | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "requests.parquet"
    if columns is None:
        path.write_bytes(b"PAR1 and nothing more PAR1")
    else:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(InputError, match=message):
        ParquetRequests(path)


def test_a_damaged_parquet_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    table = pyarrow.table({"id": list(range(5000)), "prompt": [f"question {number}" for number in range(5000)]})
    pyarrow.parquet.write_table(table, path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[4:-2000] = bytes(len(data) - 2004)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        ParquetRequests(path)


def test_cutting_holds_no_rows(tmp_path: Path) -> None:
    path, count = tmp_path / "requests.jsonl", 4_000
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"id": number, "image": f"pictures/{number}.jpg", "prompt": "why " * 200}) + "\n")
    with Requests(path) as requests:
        cut(requests, count)  # after which Python's table of interned names has grown
        tracemalloc.start()
        found = cut(requests, rows_of_a_part(requests.count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sum(part.count for part in found.parts) == count
    assert len(found.parts) == 125
    assert most < path.stat().st_size / 10


def test_what_is_said_of_a_unit_comes_back_as_it_was() -> None:
    error = BundleError("got", expected="expected", fix="fix")
    for said in (
        Said(3, "engine"),
        Said(3, "engine", 7, [(7, {"id": "é", "text": "\u2028"})]),
        Said(3, "engine", failed=error),
        Said(3, "engine", refused=InputError("got", expected="expected", fix="fix")),
    ):
        found = Said.decoded(said.encoded())
        assert found[:3] == said[:3]
        assert list(found.lines) == list(said.lines)
        assert [(type(each), str(each)) for each in found[4:]] == [(type(each), str(each)) for each in said[4:]]


IDENTITY = {"bundle": "digest", "requests": "sha256", "engine": "engine 1.0", "part_rows": 3}
KNOWN = {**IDENTITY, "engine": ...}
COUNTS = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6, "visual_tokens": 4, "cached_tokens": 0}


def answer(row: int, bad: bool = False) -> dict[str, Any]:
    """What a faked model says to a row."""
    row_id = f"é{row}"
    return {"id": row_id, "error": "no"} if bad else {"id": row_id, "text": "a\n" * row, "usage": COUNTS}


def parts_of(count: int, size: int = 3) -> list[Part]:
    firsts = range(1, count + 1, size)
    return [Part(n, first, min(size, count + 1 - first), 0, "", ()) for n, first in enumerate(firsts)]


def opened(folder: Path, count: int, restart: bool = False, **changes: Any) -> PartsFolder:
    return PartsFolder(folder / "out", {**KNOWN, **changes}, parts_of(count), integers=False, restart=restart)


def missing(answers: PartsFolder) -> list[tuple[int, int]]:
    return [(part.number, row) for part, rows in answers.left() for row in (part.rows if rows is None else rows)]


def found(folder: Path) -> list[dict[str, Any]]:
    return pyarrow.dataset.dataset(folder / "out").to_table().to_pylist()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), count=st.integers(1, 8), bad=st.frozensets(st.integers(1, 8), max_size=3))
def test_any_order_any_repetition_and_any_crash_give_each_row_once(
    data: st.DataObject, count: int, bad: frozenset[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, answered = Path(name), set[int]()
        for _ in range(data.draw(st.integers(0, 3))):
            with opened(folder, count) as answers:
                assert answers.held == len(answered - bad)
                answers.begin(IDENTITY)
                asked = data.draw(st.permutations(missing(answers)))
                for number, row in asked[: data.draw(st.integers(0, len(asked)))]:
                    assert answers.add(number, row, answer(row, row in bad))
                    assert not answers.add(number, row, {"id": "x", "text": "another worker, later"})
            _crash(data, folder / "out")
            with opened(folder, count) as answers:
                answered = set(range(1, count + 1)) - {row for _, row in missing(answers)}
        with opened(folder, count) as answers:
            answers.begin(IDENTITY)
            last = data.draw(st.frozensets(st.integers(1, 8), max_size=2))
            asked = missing(answers)
            for number, row in data.draw(st.permutations(asked)):
                answers.add(number, row, answer(row, row in last))
            answers.finish()
            errors = last & {row for _, row in asked}
            assert answers.errors == len(errors)
        rows = found(folder)
        assert [row["row"] for row in rows] == list(range(1, count + 1))
        for row in rows:
            assert row["id"] == f"é{row['row']}"
            assert (row["error"], row["text"]) == (("no", None) if row["row"] in errors else (None, "a\n" * row["row"]))
        with opened(folder, count) as answers:
            assert (answers.finished, answers.held, answers.errors) == (True, count - len(errors), len(errors))


def _crash(data: st.DataObject, folder: Path) -> None:
    """What a kill at the worst moments leaves: a torn line, a part without its line, a part that is half written."""
    commits = folder / COMMITS
    if commits.exists():
        lines = commits.read_bytes()
        commits.write_bytes(lines[: data.draw(st.integers(max(0, len(lines) - 200), len(lines)))])
    if folder.exists() and data.draw(st.booleans()):
        (folder / ".part-000000.123.partial").write_bytes(b"half")


def test_a_part_that_was_changed_is_asked_again_before_the_end_and_refused_after_it(tmp_path: Path) -> None:
    with opened(tmp_path, 4) as answers:
        answers.begin(IDENTITY)
        for row in (1, 2, 3):
            answers.add(0, row, answer(row))
    part = tmp_path / "out" / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with opened(tmp_path, 4) as answers:
        assert missing(answers) == [(0, 1), (0, 2), (0, 3), (1, 4)]
        answers.begin(IDENTITY)
        for number, row in missing(answers):
            answers.add(number, row, answer(row))
        answers.finish()
    part.write_bytes(part.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"part-000000.parquet was changed since its run has written it"):
        opened(tmp_path, 4)
    with opened(tmp_path, 4, restart=True) as answers:
        assert len(missing(answers)) == 4
        answers.begin(IDENTITY)
        assert not list((tmp_path / "out").glob("part-*"))


def test_another_runs_parts_and_what_no_run_has_written_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path, 4) as answers:
        with pytest.raises(InputError, match="another process is writing"):
            opened(tmp_path, 4)
        answers.begin(IDENTITY)
        answers.add(0, 1, answer(1))
    with pytest.raises(InputError, match=r"holds answers of another run \(part_rows 3\); expected part_rows 4"):
        opened(tmp_path, 4, part_rows=4)
    with opened(tmp_path, 4) as answers, pytest.raises(InputError, match=r"another run \(engine engine 1.0\)"):
        answers.begin({**IDENTITY, "engine": "another"})
    mine = tmp_path / "mine" / "out"
    mine.mkdir(parents=True)
    (mine / "letter").write_text("mine")
    for restart in (False, True):
        with pytest.raises(InputError, match="is there already, and no run has written it"):
            opened(tmp_path / "mine", 4, restart=restart)
    assert [path.name for path in mine.iterdir()] == ["letter"]
    with pytest.raises(InputError, match="cannot be written"):
        opened(tmp_path / "no" / "folder", 4)


def test_a_folder_that_nothing_came_into_does_not_stay(tmp_path: Path) -> None:
    with opened(tmp_path, 4):
        pass
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with opened(tmp_path, 4):
        pass
    assert list((tmp_path / "out").iterdir()) == []
