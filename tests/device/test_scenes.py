"""The demo's scenes: what is said about a picture is what was drawn."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.scenes.__main__ import write
from demo.scenes.compose import COLOURS, MARKERS, VARIANTS, Card, Scene, compose
from demo.scenes.draw import draw, encode
from demo.scenes.questions import TASKS, questions

SEEDS = st.integers(0, 2**32)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(sorted(VARIANTS)))
def test_cards_lie_apart_inside_the_picture_and_hold_their_code(seed: int, variant: str):
    rules = VARIANTS[variant]
    scene = compose(seed, 0, rules)
    assert scene == compose(seed, 0, rules)
    assert len({card.colour for card in scene.cards}) == len(scene.cards) >= 1
    for i, card in enumerate(scene.cards):
        box = card.box
        assert min(box.left, box.top) >= 0
        assert box.right <= scene.width
        assert box.bottom <= scene.height
        assert not any(box.touches(other.box) for other in scene.cards[i + 1 :])
        assert len(card.glyphs) == len(card.code) in rules.lengths
        assert set(card.code) <= set(rules.alphabet)
        assert card.font in rules.fonts
        for inner in (*card.glyphs, *([card.marker_box] if card.marker_box else [])):
            assert box.left <= inner.left < inner.right <= box.right
            assert box.top <= inner.top < inner.bottom <= box.bottom
        assert all(left.centre[0] < right.centre[0] for left, right in zip(card.glyphs, card.glyphs[1:], strict=False))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_every_glyph_box_has_ink_on_the_cards_colour(seed: int):
    scene = compose(seed, 0)
    picture = np.asarray(draw(scene)).astype(int)
    for card in scene.cards:
        for glyph in card.glyphs:
            left, top, right, bottom = (round(each) for each in (glyph.left, glyph.top, glyph.right, glyph.bottom))
            grey = picture[top:bottom, left:right].mean(axis=2)
            assert np.percentile(grey, 95) - np.percentile(grey, 5) > 60, (card, glyph)


def by_colour(scene: Scene, colour: str) -> Card:
    return next(card for card in scene.cards if card.colour == colour)


def true_answer(scene: Scene, prompt: str) -> str:
    """Reads the prompt word by word, without the code that made it."""
    words = prompt.rstrip("?").replace(",", "").split()
    if prompt.startswith("What is the code on the"):
        return by_colour(scene, words[6]).code
    if prompt.startswith("How many"):
        return str(len(scene.cards))
    if prompt.startswith("Is there"):
        colours, markers = {card.colour for card in scene.cards}, {card.marker for card in scene.cards}
        return "yes" if (words[3] in colours if words[-1] == "card" else words[-1] in markers) else "no"
    if prompt.startswith("What colour is the card with"):
        (card,) = (card for card in scene.cards if card.marker == words[-1])
        return card.colour
    if prompt.startswith("What colour is the card in"):
        row, column = words[-2:]
        inside = [
            card.colour
            for card in scene.cards
            if (card.box.centre[0] < scene.width / 2) is (column == "left")
            and (card.box.centre[1] < scene.height / 2) is (row == "top")
        ]
        (colour,) = inside
        return colour
    first, second = by_colour(scene, words[words.index("the") + 1]), by_colour(scene, words[-2])
    axis = 1 if "higher" in words else 0
    return min(first, second, key=lambda card: card.box.centre[axis]).colour


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_answers_are_right_and_no_question_is_asked_twice(seed: int):
    scene = compose(seed, 0)
    asked = questions(scene)
    assert len({question.prompt for question in asked}) == len(asked)
    assert {question.task for question in asked} <= set(TASKS)
    for question in asked:
        assert question.answer == true_answer(scene, question.prompt), question
    presence = Counter(question.answer for question in asked if question.task == "presence")
    assert presence["yes"] == presence["no"]


def test_scenes_cover_every_colour_marker_and_grid():
    scenes = [compose(0, number) for number in range(150)]
    assert {card.colour for scene in scenes for card in scene.cards} == set(COLOURS)
    assert {card.marker for scene in scenes for card in scene.cards} == {None, *MARKERS}
    assert len({(scene.width > 500, scene.height > 500) for scene in scenes}) == 3
    assert {question.task for scene in scenes for question in questions(scene)} == set(TASKS)


def test_a_data_set_is_written_whole_and_the_same_each_time(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert write(first, 5, 3) == write(second, 5, 3) == 24
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    rows = [json.loads(line) for line in (first / "questions.jsonl").read_text().splitlines()]
    for row in rows:
        scene = compose(5, int(row["id"].split("-")[0]))
        assert row["answers"] == [true_answer(scene, row["prompt"])]
        with Image.open(first / row["image"]) as picture:
            assert picture.size == (scene.width, scene.height)
    write(first, 6, 1)  # an earlier data set is replaced
    assert len(list((first / "pictures").iterdir())) == 1


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    command = [sys.executable, "-m", "demo.scenes", "--seed", "1", "--count", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == 2
    assert "holds something that was not made here" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_picture_is_a_jpeg_of_its_scene(variant: str):
    scene = compose(7, 1, VARIANTS[variant])
    picture = Image.open(io.BytesIO(encode(scene)))
    assert (picture.format, picture.size) == ("JPEG", (scene.width, scene.height))
