"""`make demo`: three questions about one picture at four budgets, side by side; writes a drawing of the kept tokens.

Needs the runtime and the CPU engine only. The picture is drawn here, from a seed that the model was not trained on.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import median

from PIL import Image

import hired_runtime
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import Question, sample
from hired_edge.errors import HiredEdgeError
from hired_edge.selection import Selection
from hired_runtime.drawing import draw_kept
from hired_runtime.pictures import load_picture

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "demo/bundle"
OUTPUT = ROOT / "demo/output"
BUDGETS = ("100%", "40%", "20%", "10%")
DRAWN = "20%"
SEED, NUMBER = 2024, 12
TASKS = ("read", "find", "compare")
REPEATS = 5


@dataclass(frozen=True)
class Column:
    """What one budget gave.

    Args:
        answers: to each question.
        selection: of the picture's tokens.
        ttft_ms: median time to first token.
        cache_kib: of the key-value cache.
    """

    answers: list[str]
    selection: Selection
    ttft_ms: float
    cache_kib: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.run", description=__doc__)
    parser.add_argument("--number", type=int, default=NUMBER, metavar="N", help="another scene of the series")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a picture of yours instead")
    parser.add_argument("--prompt", action="append", default=[], help="a question about it; may be repeated")
    args = parser.parse_args()

    OUTPUT.mkdir(exist_ok=True)
    path, questions = (args.image, []) if args.image else draw_scene(args.number)
    prompts = args.prompt or [question.prompt for question in questions] or ["How many cards are there?"]
    picture = load_picture(path)
    print(f"picture   {shown(path)}, {picture.width} x {picture.height}\n")

    columns = {budget: ask(picture, prompts, budget) for budget in BUDGETS}
    truths = {question.prompt: question.answer for question in questions}
    for row in table(prompts, truths, columns):
        print(row)

    selection, drawing = columns[DRAWN].selection, OUTPUT / "kept.png"
    draw_kept(picture, selection.tiling, selection.indices, drawing)
    print(f"\nThe tokens kept at {DRAWN} are drawn in {shown(drawing)}")


def draw_scene(number: int) -> tuple[Path, list[Question]]:
    """Draws a scene and chooses a question of each of three tasks, as far as it allows them."""
    scene = compose(SEED, number)
    path = OUTPUT / "scene.jpg"
    path.write_bytes(encode(scene))
    rng = random.Random(number)
    return path, [each for task in TASKS for each in sample(rng, scene, {task: 1.0}, 1)]


def ask(picture: Image.Image, prompts: list[str], budget: str) -> Column:
    """Opens the bundle at one budget, warms it up, then asks everything REPEATS times."""
    model = hired_runtime.open(BUNDLE, visual_tokens=budget, images=1)
    model.ask(prompts[0], [picture])
    answers = [[model.ask(prompt, [picture]) for prompt in prompts] for _ in range(REPEATS)]
    return Column(
        answers=[" ".join(answer.text.split()) for answer in answers[0]],
        selection=answers[0][0].selections[0],
        ttft_ms=median(answer.timings_ms["ttft"] for row in answers for answer in row),
        cache_kib=model.cache_bytes / 1024,
    )


def table(prompts: list[str], truths: dict[str, str], columns: dict[str, Column]) -> list[str]:
    """Rows of text: a question each, then what the budget costs."""
    head = ["budget", *columns, *(["truth"] if truths else [])]
    rows = [
        [prompt, *(column.answers[i] for column in columns.values()), *([truths[prompt]] if prompt in truths else [])]
        for i, prompt in enumerate(prompts)
    ]
    costs = {
        "visual tokens": lambda column: f"{column.selection.visual_tokens}",
        "time to first token, ms": lambda column: f"{column.ttft_ms:.1f}",
        "key-value cache, KiB": lambda column: f"{column.cache_kib:.0f}",
    }
    rows += [[name, *(cost(column) for column in columns.values())] for name, cost in costs.items()]
    first, *others = (max(map(len, column)) for column in zip_longest(head, *rows, fillvalue=""))
    return [
        f"{row[0]:<{first}}"
        + "".join(f"  {cell:>{max(6, width)}}" for cell, width in zip(row[1:], others, strict=False))
        for row in [head, *rows]
    ]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    try:
        main()
    except HiredEdgeError as error:
        sys.exit(f"demo: {error}")
