"""`python -m demo.scenes --seed N --count N --out DIR`: a data set for `hired-edge eval`, drawn from a seed."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from demo.folders import check_replaceable
from demo.scenes.compose import VARIANTS, Scene, compose
from demo.scenes.draw import encode
from demo.scenes.questions import TASKS, Question, sample
from hired_edge.errors import InputError

MARK = "scenes.json"  # what a data set written here holds beside its questions
#: Training draws from the seeds below this one; what is measured on others was held out.
HELD_OUT_SEED = 1000


def write(
    out: Path, seed: int, count: int, questions: int = 8, variant: str = "trained", per_task: int | None = None
) -> int:
    """Writes `count` pictures and `questions.jsonl` into `out`; returns the number of questions.

    Tasks are asked equally often, as far as scenes allow; with `per_task`, exactly that often each, at most once a
    picture, over as many pictures as that takes (`count` and `questions` are not looked at). A data set written by
    this is replaced, once the new one is whole; nothing else ever is.

    Raises:
        InputError: `out` holds something else, or cannot be written.
    """
    out = out.resolve()
    check_replaceable(out, MARK)
    total = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            partial = Path(folder) / "data"
            (partial / "pictures").mkdir(parents=True)
            size = {"count": count} if per_task is None else {"per_task": per_task}
            made = {"seed": seed, **size, "variant": variant}
            (partial / MARK).write_text(json.dumps(made) + "\n")
            if per_task is None:
                rows = (row for n in range(count) for row in _rows(partial, seed, n, questions, variant))
            else:
                rows = _equally(partial, seed, variant, per_task)
            with (partial / "questions.jsonl").open("w", encoding="utf-8") as file:
                for row in rows:
                    file.write(json.dumps(row) + "\n")
                    total += 1
            if out.exists():
                out.rename(Path(folder) / "replaced")
            partial.rename(out)
    except OSError as error:
        got = f"{out} cannot be written ({error.strerror})"
        raise InputError(got, expected="a writable folder", fix="pass another --out") from None
    return total


def _rows(folder: Path, seed: int, number: int, questions: int, variant: str) -> Iterator[dict]:
    scene, rng = compose(seed, number, VARIANTS[variant]), random.Random(f"questions {seed} {number}")
    yield from _asked(folder, number, scene, sample(rng, scene, dict.fromkeys(TASKS, 1.0), questions))


def _equally(folder: Path, seed: int, variant: str, per_task: int) -> Iterator[dict]:
    """Of each picture in turn, one question of every task that is still short of `per_task`."""
    left: dict[str, int] = dict.fromkeys(TASKS, per_task)
    for number in itertools.count():
        if not any(left.values()):
            return
        assert number < 100 * (per_task + 1), f"scenes of variant {variant} pose too few of {left}"
        scene, rng = compose(seed, number, VARIANTS[variant]), random.Random(f"questions {seed} {number}")
        asked = [each for task in TASKS if left[task] for each in sample(rng, scene, {task: 1.0}, 1)]
        left.update({question.task: left[question.task] - 1 for question in asked})
        if asked:
            yield from _asked(folder, number, scene, asked)


def _asked(folder: Path, number: int, scene: Scene, questions: Iterable[Question]) -> Iterator[dict]:
    """Draws the picture; its rows."""
    name = f"pictures/{number:05d}.jpg"
    (folder / name).write_bytes(encode(scene))
    for place, question in enumerate(questions):
        yield {
            "id": f"{number:05d}-{place}",
            "image": name,
            "prompt": question.prompt,
            "answers": [question.answer],
            "task": question.task,
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.scenes", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help=f"{HELD_OUT_SEED} or more: not seen in training")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="pictures")
    parser.add_argument("--per-task", type=int, metavar="N", help="questions of each task, in place of --count")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--questions", type=int, default=8, metavar="N", help="of each picture (default: 8)")
    parser.add_argument("--variant", choices=list(VARIANTS), default="trained", help="kind of codes (default: trained)")
    args = parser.parse_args()
    try:
        for name in ("count", "questions", "per_task"):
            value, flag = getattr(args, name), f"--{name.replace('_', '-')}"
            if value is not None and value < 1:
                raise InputError(f"{flag} {value}", expected="1 or more", fix=f"pass another {flag}")
        total = write(args.out, args.seed, args.count, args.questions, args.variant, args.per_task)
    except InputError as error:
        parser.error(str(error))
    pictures = sum(1 for _ in (args.out / "pictures").iterdir())
    print(f"{pictures} pictures and {total} questions in {args.out}")


if __name__ == "__main__":
    main()
