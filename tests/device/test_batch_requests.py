"""The rows of a batch: what is read of them, what is wrong with one, and that a file is never held as a whole."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.errors import InputError
from hired_runtime.batch import together
from hired_runtime.batch.requests_file import LONGEST_ROW, BadRow, Requests, Row

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(str.strip)
paths = words.filter(lambda text: not text.lower().startswith(("http", "data")))  # an address is an error
ids = words | st.integers(-(2**70), 2**70)
good = st.fixed_dictionaries({"id": ids, "prompt": words}, optional={"image": st.none() | paths | st.lists(paths)})
blank = st.sampled_from([b"", b"  ", b"\r"])
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "image", "prompt", "x"]), inner),
    max_leaves=8,
)
line = (
    st.binary(max_size=30) | good.map(lambda row: json.dumps(row).encode()) | anything.map(json.dumps).map(str.encode)
)


@contextmanager
def opened(data: bytes) -> Iterator[Requests]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "requests.jsonl").write_bytes(data)
        with Requests(Path(folder) / "requests.jsonl") as requests:
            yield requests


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(good, min_size=1, max_size=6, unique_by=lambda row: json.dumps(row["id"])), data=st.data())
def test_good_rows_are_read_as_they_are(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    lines = []
    for row in rows:
        lines += [
            *data.draw(st.lists(blank, max_size=1)),
            json.dumps(row, ensure_ascii=data.draw(st.booleans())).encode(),
        ]
    mark, end = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])), data.draw(st.sampled_from([b"", b"\n", b"\n\n"]))
    with opened(mark + b"\n".join(lines) + end) as requests:
        assert requests.count == len(rows)
        for _ in range(2):  # as often as one likes
            for number, (read, row) in enumerate(zip(requests.rows(), rows, strict=True), 1):
                image = row.get("image") or []
                images = tuple(requests.path.parent / path for path in ([image] if isinstance(image, str) else image))
                assert read == Row(number, row["id"], images, row["prompt"])


@settings(max_examples=150, deadline=None)
@given(st.lists(line | blank, max_size=6))
def test_whatever_a_file_holds_every_row_is_told(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    filled = [each for each in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if each.strip()]
    if not filled:
        with pytest.raises(InputError, match="has no rows"), opened(data):
            pass
        return
    with opened(data) as requests:
        rows = list(requests.rows())
        assert requests.count == len(rows) == len(filled)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert row.id is None or type(row.id) in (str, int)
        if isinstance(row, BadRow):
            assert 0 < len(row.reason) < 300
            assert row.reason.isprintable()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([1, "1", "a", "b", 2**65, None]), min_size=1, max_size=12))
def test_an_id_belongs_to_the_first_row_that_has_it(drawn: list[Any]) -> None:
    with opened(b"".join(json.dumps({"id": each, "prompt": "?"}).encode() + b"\n" for each in drawn)) as requests:
        rows = list(requests.rows())
    for place, (row, given_id) in enumerate(zip(rows, drawn, strict=True)):
        owner = next(at for at, each in enumerate(drawn) if each == given_id and type(each) is type(given_id))
        assert isinstance(row, BadRow) == (given_id is None or owner != place)
        if isinstance(row, BadRow) and given_id is not None:
            assert f"that of row {owner + 1} already" in row.reason


@pytest.mark.parametrize(
    ("row", "row_id", "reason"),
    [
        (b"{", None, "the row is not JSON"),
        (b"[1]", None, "a list is not an object"),
        (b"\xff", None, "not UTF-8 at byte 0"),
        (b'{"id": "a", "id": "b", "prompt": "?"}', None, "the row has the key 'id' twice"),
        (b'{"id": NaN, "prompt": "?"}', None, "the row holds NaN"),
        (b"[" * 100_000, None, "nested too deeply"),
        (b'{"prompt": "?"}', None, "id is missing"),
        (b'{"id": null, "prompt": "?"}', None, "id is None, not a string or an integer"),
        (b'{"id": true, "prompt": "?"}', None, "id is True, not"),
        (b'{"id": 1.5, "prompt": "?"}', None, "id is 1.5, not"),
        (b'{"id": "  ", "prompt": "?"}', None, "id is empty"),
        (b'{"id": "a\\ud800", "prompt": "?"}', None, "id holds half a character"),
        (b'{"id": 3}', 3, "prompt is missing"),
        (b'{"id": 3, "prompt": null}', 3, "prompt is None, not a string"),
        (b'{"id": 3, "prompt": ""}', 3, "prompt is empty"),
        (b'{"id": 3, "prompt": "\\udfff"}', 3, "prompt holds half a character"),
        (b'{"id": 3, "prompt": "?", "image": 1}', 3, "image is 1, not a path, a list of paths or null"),
        (b'{"id": 3, "prompt": "?", "image": ["a", null]}', 3, "image is None, not a path"),
        (b'{"id": 3, "prompt": "?", "image": ""}', 3, "image is empty"),
        (b'{"id": 3, "prompt": "?", "image": "\\ud800"}', 3, "image holds half a character"),
        (
            b'{"id": 3, "prompt": "?", "image": "https://a.org/a.png"}',
            3,
            "image is the address 'https://a.org/a.png', not",
        ),
        (b'{"id": 3, "prompt": "?", "image": ["Data:image/png;base64,A"]}', 3, "not a file on this machine"),
        (b'{"id": 3, "prompt": "?", "images": []}', 3, "unknown key 'images'; expected only id, image, prompt"),
    ],
)
def test_what_is_wrong_with_a_row(row: bytes, row_id: Any, reason: str) -> None:
    with opened(row + b'\n{"id": "z", "prompt": "?"}') as requests:
        first, second = requests.rows()
    assert isinstance(first, BadRow)
    assert first.id == row_id
    assert reason in first.reason
    assert second == Row(2, "z", (), "?")


def test_a_row_that_is_too_long_is_one_bad_row() -> None:
    long = json.dumps({"id": 1, "prompt": "x" * LONGEST_ROW}).encode()
    with opened(long + b"\n" + b'{"id": 2, "prompt": "?"}\n' + long) as requests:
        rows = list(requests.rows())
    assert [type(row) for row in rows] == [BadRow, Row, BadRow]
    assert f"longer than {LONGEST_ROW} bytes" in str(rows[0])


def test_a_file_is_never_held_as_a_whole(tmp_path: Path) -> None:
    path, count = tmp_path / "requests.jsonl", 500
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"id": number, "prompt": "x" * 20_000}) + "\n")
    tracemalloc.start()
    with Requests(path) as requests:
        assert sum(1 for _ in requests.rows()) == count
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < path.stat().st_size / 5


def test_a_file_that_is_changed_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"id": 1, "prompt": "?"}\n')
    with Requests(path) as requests:
        with path.open("a") as file:
            file.write('{"id": 2, "prompt": "?"}\n')
        with pytest.raises(InputError, match="was changed while it was read"):
            list(requests.rows())


def test_what_is_no_file_of_requests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\)"):
        Requests(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        Requests(tmp_path)
    with pytest.raises(InputError, match="is no regular file"):
        Requests(Path(os.devnull))
    (tmp_path / "empty").write_bytes(b"\n \n")
    with pytest.raises(InputError, match="has no rows"):
        Requests(tmp_path / "empty")


@settings(max_examples=100, deadline=None)
@given(drawn=st.lists(st.integers(0, 3), max_size=30), ahead=st.integers(1, 40), most=st.integers(1, 200))
def test_rows_about_the_same_pictures_are_asked_together(drawn: list[int], ahead: int, most: int) -> None:
    rows = [
        Row(number, number, (Path(str(each)),), "x" * 10) if each else BadRow(number, None, "bad")
        for number, each in enumerate(drawn, 1)
    ]
    taken, found = [], []

    def noted() -> Iterator[Row | BadRow]:
        for row in rows:
            held = [each for each in taken if each not in found]
            assert len(held) <= ahead
            assert sum(10 for each in held if isinstance(each, Row)) <= max(most, 10)
            taken.append(row)
            yield row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "ROWS", ahead)
        patch.setattr(together, "CHARACTERS", most)
        for row in together.together(noted()):
            found.append(row)
    assert sorted(row.number for row in found) == [row.number for row in rows]
    for each in set(drawn):
        own = [row.number for row in found if drawn[row.number - 1] == each]
        assert own == sorted(own)
    if ahead >= len(rows) and most >= 10 * len(rows):
        assert len([each for each, _ in itertools.groupby(drawn[row.number - 1] for row in found)]) == len(set(drawn))
