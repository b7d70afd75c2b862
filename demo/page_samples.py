"""The sample pictures of the server's page: scenes that training did not see, with questions that the model answers.

Of each task one question is taken that the demonstration model answers rightly with all tokens and at 20 %.
"""

from __future__ import annotations

import json
import random

import hired_runtime
from demo.run import BUNDLE, SEED
from demo.scenes.compose import Scene, compose
from demo.scenes.draw import encode
from demo.scenes.questions import TASKS, Question, sample
from hired_edge.errors import InputError
from hired_runtime.model import Model
from hired_runtime.serving.page_files import PAGE, SAMPLES

NUMBERS = (29, 24, 6, 21, 4)  # of the series of `make demo`: grids 2x2, one of them mostly padding, and 3x1
BUDGETS = ("100%", "20%")


def write() -> list[str]:
    """Writes the pictures and their list into the page's folder; returns the names.

    Raises:
        InputError: a scene without a question that the model answers.
    """
    folder = (PAGE / SAMPLES).parent
    folder.mkdir(exist_ok=True)
    model, listed = hired_runtime.open(BUNDLE), []
    for place, number in enumerate(NUMBERS, start=1):
        scene = compose(SEED, number)
        picture = encode(scene)
        asked = answered(model, scene, picture)
        if not asked:
            raise InputError(f"scene {number}", expected="a question that the model answers", fix="take another scene")
        (folder / f"scene-{place}.jpg").write_bytes(picture)
        colours = ", ".join(card.colour for card in scene.cards)
        listed.append(
            {
                "file": f"scene-{place}.jpg",
                "words": f"{len(scene.cards)} cards: {colours}",
                "questions": [{"prompt": each.prompt, "answer": each.answer} for each in asked],
            }
        )
    (PAGE / SAMPLES).write_text(json.dumps(listed, indent=1) + "\n")
    return [each["file"] for each in listed]


def answered(model: Model, scene: Scene, picture: bytes) -> list[Question]:
    """A question of each task that the model answers rightly at every one of BUDGETS, as far as there is one."""
    found = []
    for task in TASKS:
        for question in sample(random.Random(f"page {scene.number} {task}"), scene, {task: 1.0}, 20):
            answers = {model.ask(question.prompt, [picture], visual_tokens=each).text.strip() for each in BUDGETS}
            if answers == {question.answer}:
                found.append(question)
                break
    return found
