"""What an evaluation reads: data sets and their bad rows, metrics, settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hired_edge.errors import InputError
from hired_edge.policies import POLICIES
from hired_edge.tiling import TilingRules
from hired_runtime.evaluation import METRICS, Setting, read_dataset, settings_grid
from hired_runtime.evaluation.settings import STOCK, Key
from tests.tiny.questions import write_questions, write_rows

GOOD = {"image": "0.png", "prompt": "What is it?", "answers": ["a card"], "task": "read"}


# Data sets.


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{", "not JSON ("),
        (b"\xff\xfe", "not JSON ('utf-8' codec"),
        (b"[" * 100_000, "not JSON ("),
        (b"1" * 5000, "not JSON ("),
        (["image"], "a list is not an object"),
        ({"prompt": "?", "answers": ["a"], "task": "read"}, "image is missing"),
        ({"image": "0.png", "answers": ["a"], "task": "read"}, "prompt is missing"),
        ({"image": "0.png", "prompt": "?", "task": "read"}, "answers is missing"),
        ({"image": "0.png", "prompt": "?", "answers": ["a"]}, "task is missing"),
        ({**GOOD, "image": 3}, "image is 3, not a string"),
        ({**GOOD, "image": ""}, "image is empty"),
        ({**GOOD, "prompt": None}, "prompt is None, not a string"),
        ({**GOOD, "prompt": "half \ud800"}, "prompt holds half a character"),
        ({**GOOD, "task": {}}, "task is an object, not a string"),
        ({**GOOD, "answers": "a card"}, "answers is not a list of at least one string"),
        ({**GOOD, "answers": []}, "answers is not a list of at least one string"),
        ({**GOOD, "answers": ["a", 1]}, "answers is not a list of at least one string"),
        ({**GOOD, "image": "../elsewhere.png"}, "'../elsewhere.png' lies outside the data set"),
        ({**GOOD, "image": "/etc/passwd"}, "'/etc/passwd' lies outside the data set"),
        ({**GOOD, "image": "link.png"}, "'link.png' lies outside the data set"),
        ({**GOOD, "image": "9.png"}, "'9.png' is not there"),
        ({**GOOD, "image": "."}, "'.' is not there"),
        ({**GOOD, "image": "loop/0.png"}, "'loop/0.png' "),
        ({**GOOD, "image": "a\0b.png"}, "'a\\x00b.png' cannot be a path"),
        ({**GOOD, "image": "n" * 5000}, "nnn..."),
    ],
)
def test_a_bad_row_has_a_line_and_a_reason(row: Any, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "questions"
    write_questions(folder, pictures=1)
    (tmp_path / "elsewhere.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "loop").symlink_to("loop")
    write_rows(folder, [GOOD, row, {**GOOD, "image": "./0.png"}])
    dataset = read_dataset(folder)
    assert [question.line for question in dataset.questions] == [1, 3]
    assert dataset.questions[0].picture == dataset.questions[1].picture
    (bad,) = dataset.bad_rows
    assert bad.line == 2
    assert reason in bad.reason
    assert len(bad.reason) < 300
    assert bad.reason.isprintable()


def test_a_good_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "questions"
    write_questions(folder, pictures=1)
    text = "\ufeff" + json.dumps({**GOOD, "id": 7, "seed": [1]}) + "\r\n\n" + json.dumps(GOOD)
    (folder / "questions.jsonl").write_bytes(text.encode())
    dataset = read_dataset(folder)
    assert dataset == read_dataset(folder)
    assert dataset.bad_rows == []
    assert [each.line for each in dataset.questions] == [1, 3]
    first = dataset.questions[0]
    assert (first.image, first.prompt, first.answers, first.task) == ("0.png", "What is it?", ("a card",), "read")
    assert first.picture == (folder / "0.png").resolve()


def test_other_questions_or_pictures_are_another_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "questions"
    write_questions(folder, pictures=1)
    write_rows(folder, [GOOD])
    first = read_dataset(folder).sha256
    assert read_dataset(folder).sha256 == first
    write_rows(folder, [{**GOOD, "answers": ["two cards"]}])
    second = read_dataset(folder).sha256
    data = bytearray((folder / "0.png").read_bytes())
    data[-20] ^= 1  # of as many bytes as before
    (folder / "0.png").write_bytes(data)
    assert len({first, second, read_dataset(folder).sha256}) == 3


def test_pictures_that_change_places_are_another_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "questions"
    write_questions(folder, pictures=2)
    first = read_dataset(folder).sha256
    (folder / "0.png").rename(folder / "2.png")
    (folder / "1.png").rename(folder / "0.png")
    (folder / "2.png").rename(folder / "1.png")
    assert read_dataset(folder).sha256 != first


def test_a_picture_is_hashed_once_and_one_that_cannot_be_read_is_still_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "questions"
    write_questions(folder, pictures=2)
    read_bytes, opened = Path.read_bytes, []

    def spy(path: Path) -> bytes:
        opened.append(path.name)
        if path.name == "1.png":
            raise PermissionError
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", spy)
    unreadable = read_dataset(folder)
    assert sorted(opened) == ["0.png", "1.png", "questions.jsonl"]
    assert (len(unreadable.questions), unreadable.bad_rows) == (6, [])
    monkeypatch.undo()
    (folder / "1.png").write_bytes(b"")
    assert read_dataset(folder).sha256 == unreadable.sha256


def test_a_data_set_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"questions\.jsonl cannot be read \(No such file or directory\)"):
        read_dataset(tmp_path)
    (tmp_path / "questions.jsonl").touch()
    with pytest.raises(InputError, match=r"no row that can be answered \(0 bad\); expected at least one"):
        read_dataset(tmp_path)
    write_rows(tmp_path, [[], GOOD])
    with pytest.raises(InputError, match=r"no row that can be answered \(2 bad; line 1: a list is not an object\)"):
        read_dataset(tmp_path)


# Metrics.


@pytest.mark.parametrize(
    ("answer", "accepted", "score"),
    [
        ("A Card", ["a card"], 1),
        ("  a \n card.", ["A  card"], 1),
        ("a card", ["A card."], 1),
        ("STRASSE", ["stra\u00dfe"], 1),
        ("two", ["2", "two"], 1),
        ("a card ..", ["a card"], 0),
        ("acard", ["a card"], 0),
        ("a card, I think", ["a card"], 0),
        ("", ["a card"], 0),
        ("", [" . "], 1),
        ("7", ["07"], 0),
    ],
)
def test_exact(answer: str, accepted: list[str], score: float) -> None:
    assert METRICS["exact"](answer, accepted) == score


# Settings.


def test_settings_that_come_to_the_same_have_one_key() -> None:
    assert {Setting(policy, "100%", alpha).key for policy in POLICIES for alpha in (0, 0.5)} == {STOCK}
    assert Setting("full", "20%") == Setting("full")
    assert Setting("random", "20%", 0.1).key == Setting("random", "20.00%", "0.9").key == Key("random", "20%", None)
    assert Setting("hired", "20%", 0.5).key == Setting("hired", "20 %", "1/2").key == Key("hired", "20%", "1/2")
    assert Setting("hired", "20%", 0.1).key != Setting("hired", "20%", 0.3).key
    assert Setting("hired", "64").key != Setting("hired-2024", "64").key


def test_what_makes_a_difference_is_in_the_key() -> None:
    plain = Setting("hired", "20%")
    changes: list[dict[str, Any]] = [{"newlines": "none"}, {"partitions": "base"}, {"positions": "original"}]
    others = [replace(plain, **change) for change in changes]
    assert len({each.key for each in [plain, *others]}) == 4
    assert [each.name for each in others] == [
        "hired, newlines none",
        "hired, base picture alone",
        "hired, original positions",
    ]
    # At 100 % nothing is renumbered and every row has its newline; without sub-images it is another sequence.
    stock = [replace(each, budget="100%").key for each in others]
    assert [key == STOCK for key in stock] == [True, False, True]
    # One tile has nothing to share and no rows.
    base = Setting("hired", "20%", partitions="base")
    assert replace(base, alpha=0.1).key == base.key == replace(base, newlines="none").key


def test_a_grid_over_newlines_and_positions() -> None:
    grid = settings_grid(
        ["full", "random"], ["100%", "20%"], [0.5], [None, "none"], ["compact", "original"], partitions="base"
    )
    assert {each.partitions for each in grid} == {"base"}
    assert [(each.policy, each.budget, each.newlines, each.positions) for each in grid] == [
        ("full", "100%", None, "compact"),
        *[
            ("random", budget, rows, places)
            for rows in (None, "none")
            for places in ("compact", "original")
            for budget in ("100%", "20%")
        ],
    ]


def test_the_base_picture_alone_has_fewer_tokens() -> None:
    rules = TilingRules("anyres", 56, 14, ((112, 112), (56, 168)))
    assert Setting("hired", "50%").key.max_tokens(rules) == 40
    assert Setting("hired", "50%", partitions="base").key.max_tokens(rules) == 8
    assert Setting("full").key.max_tokens(rules) == 16 + 64 + 8
    assert Setting("full", partitions="base").key.max_tokens(rules) == 16


def test_a_grid_has_every_combination_once() -> None:
    grid = settings_grid(["full", "hired", "random"], ["100%", "20%", "20.0%"], ["0.5", "0.3", "1/2"])
    assert [(each.policy, each.budget, each.shown_alpha) for each in grid] == [
        ("full", "100%", None),
        ("hired", "100%", 0.5),
        ("hired", "20%", 0.5),
        ("hired", "100%", 0.3),
        ("hired", "20%", 0.3),
        ("random", "100%", None),
        ("random", "20%", None),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best",), "'best'"),
        (("hired", "many"), "'many'"),
        (("full", "many"), "'many'"),
        (("full", "1", 2), "alpha"),
        (("hired", "1", 0.5, "some"), "newline policy 'some'"),
        (("hired", "1", 0.5, None, "tiles"), "partitions 'tiles'; expected all, base"),
        (("hired", "1", 0.5, None, "all", "mine"), "positions 'mine'; expected compact, original"),
    ],
)
def test_what_is_no_setting(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Setting(*arguments)
