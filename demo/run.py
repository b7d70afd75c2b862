"""`make demo`: one picture, one question, three budgets; writes a drawing of the kept tokens.

Needs the runtime and the CPU engine only. The bundle has seeded random weights, so the words are noise; the budget, the
selection and the times are real.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import hired_runtime
from hired_runtime.drawing import draw_kept
from hired_runtime.pictures import load_picture
from hired_runtime.pipeline import STAGES, Answer

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "tests/golden/bundle"
PICTURE = ROOT / "demo/pictures/coffee.jpg"
DRAWING = ROOT / "demo/output/kept.png"
QUESTION = "What is on the table?"
BUDGETS = ("100%", "40%", "20%")
REPEATS = 9
COLUMNS = (*STAGES, "ttft", "total")


def main() -> None:
    picture = load_picture(PICTURE)
    print(f"picture   {PICTURE.relative_to(ROOT)}, {picture.width} x {picture.height}")
    print(f"question  {QUESTION}\n")
    print(f"{'budget':>6} {'kept':>9} {'cache':>9}" + "".join(f"{name:>11}" for name in COLUMNS) + "   (ms, median)")
    answers = {budget: ask(budget) for budget in BUDGETS}
    print("\nThis model's weights are random: its words are noise. Its budget, selection and times are real.")
    for budget, answer in answers.items():
        print(f"{budget:>6}  {answer.text[:60]!r}")
    selection = answers[BUDGETS[-1]].selections[0]
    DRAWING.parent.mkdir(exist_ok=True)
    draw_kept(picture, selection.tiling, selection.indices, DRAWING)
    counts = ", ".join(f"tile {i} {count}" for i, count in enumerate(selection.counts) if i)
    print(f"\nkept at {BUDGETS[-1]}: base {selection.counts[0]}, {counts}; drawn in {DRAWING.relative_to(ROOT)}")


def ask(budget: str) -> Answer:
    """Opens the bundle at one budget, asks once to warm up, then prints the medians of REPEATS times."""
    model = hired_runtime.open(BUNDLE, visual_tokens=budget, images=1)
    answers = [model.ask(QUESTION, [PICTURE], max_new_tokens=16) for _ in range(1 + REPEATS)][1:]
    answer = answers[0]
    kept = f"{answer.selections[0].visual_tokens}/{answer.selections[0].tiling.stock_tokens}"
    cache = f"{model.cache_bytes / 1024:.0f} KiB"
    times = "".join(f"{median(answer.timings_ms[name] for answer in answers):11.1f}" for name in COLUMNS)
    print(f"{budget:>6} {kept:>9} {cache:>9}{times}")
    return answer


if __name__ == "__main__":
    main()
