"""Scene -> questions with their answers. Only what has one right answer is asked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

from demo.scenes.compose import COLOURS, MARKERS, SCALE, Card, Scene

TASKS = ("read", "find", "count", "presence", "compare")
_CLEAR = 28 * SCALE  # px that two places must differ by to be compared: a patch of a 2x2 grid's base picture
_INSIDE = 0.08  # of the picture's side that a card's centre must be away from the middle to be "in the top left"


@dataclass(frozen=True)
class Question:
    """A question about a scene; `task` is one of TASKS."""

    task: str
    prompt: str
    answer: str


def questions(scene: Scene) -> list[Question]:
    """Every question that a scene allows, presence balanced between yes and no."""
    return [*_read(scene), *_find(scene), *_count(scene), *_presence(scene), *_compare(scene)]


def sample(rng: random.Random, scene: Scene, weights: dict[str, float], count: int) -> list[Question]:
    """`count` questions, each of a task drawn by its weight among those that the scene allows; none twice."""
    asked = questions(scene)
    by_task = {task: [each for each in asked if each.task == task] for task in weights}
    chosen: list[Question] = []
    while len(chosen) < count and any(by_task.values()):
        tasks = [task for task in weights if by_task[task]]
        task = rng.choices(tasks, [weights[task] for task in tasks])[0]
        chosen.append(by_task[task].pop(rng.randrange(len(by_task[task]))))
    return chosen


def _read(scene: Scene) -> Iterator[Question]:
    for card in scene.cards:
        yield Question("read", f"What is the code on the {card.colour} card?", card.code)


def _find(scene: Scene) -> Iterator[Question]:
    for row, column in product(("top", "bottom"), ("left", "right")):
        near = [card for card in scene.cards if _reaches(card, scene, row, column, -_INSIDE)]
        if len(near) == 1 and _reaches(near[0], scene, row, column, _INSIDE):
            yield Question("find", f"What colour is the card in the {row} {column}?", near[0].colour)
    for marker in MARKERS:
        cards = [card for card in scene.cards if card.marker == marker]
        if len(cards) == 1:
            yield Question("find", f"What colour is the card with the {marker}?", cards[0].colour)


def _reaches(card: Card, scene: Scene, row: str, column: str, by: float) -> bool:
    """Whether the card's centre lies in that quarter of the picture, at least `by` of a side from its inner borders."""
    x, y = card.box.centre[0] / scene.width - 0.5, card.box.centre[1] / scene.height - 0.5
    return (x if column == "right" else -x) >= by and (y if row == "bottom" else -y) >= by


def _count(scene: Scene) -> Iterator[Question]:
    yield Question("count", "How many cards are there?", str(len(scene.cards)))


def _presence(scene: Scene) -> Iterator[Question]:
    """As many absent things as present ones, as far as there are: which ones depends on the scene's seed."""
    rng = random.Random(f"presence {scene.seed} {scene.number}")
    for kind, names, there in (
        ("{} card", COLOURS, {card.colour for card in scene.cards}),
        ("card with a {}", MARKERS, {card.marker for card in scene.cards}),
    ):
        present, absent = [[name for name in names if (name in there) is wanted] for wanted in (True, False)]
        count = min(len(present), len(absent))
        for name in (*rng.sample(present, count), *rng.sample(absent, count)):
            what = kind.format(name)
            article = "an" if what[0] in "aeiou" else "a"
            yield Question("presence", f"Is there {article} {what}?", "yes" if name in there else "no")


def _compare(scene: Scene) -> Iterator[Question]:
    for pair in combinations(scene.cards, 2):
        for axis, word in ((0, "further left"), (1, "higher")):
            for first, second in (pair, pair[::-1]):
                difference = first.box.centre[axis] - second.box.centre[axis]
                if abs(difference) >= _CLEAR:
                    which = first if difference < 0 else second
                    prompt = f"Which card is {word}, the {first.colour} one or the {second.colour} one?"
                    yield Question("compare", prompt, which.colour)
