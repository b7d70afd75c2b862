"""`python -m demo.scenes --seed N --count N --out DIR`: a data set for `hired-edge eval`, drawn from a seed."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from demo.folders import check_replaceable
from demo.scenes.compose import VARIANTS, compose
from demo.scenes.draw import encode
from demo.scenes.questions import TASKS, sample
from hired_edge.errors import InputError

MARK = "scenes.json"  # what a data set written here holds beside its questions
#: Training draws from the seeds below this one; what is measured on others was held out.
HELD_OUT_SEED = 1000


def write(out: Path, seed: int, count: int, questions: int = 8, variant: str = "trained") -> int:
    """Writes `count` pictures and `questions.jsonl` into `out`; returns the number of questions.

    Tasks are asked equally often, as far as scenes allow. A data set written by this is replaced, once the new one
    is whole; nothing else ever is.

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
            (partial / MARK).write_text(json.dumps({"seed": seed, "count": count, "variant": variant}) + "\n")
            with (partial / "questions.jsonl").open("w", encoding="utf-8") as file:
                for number in range(count):
                    for row in _rows(partial, seed, number, questions, variant):
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
    scene = compose(seed, number, VARIANTS[variant])
    name = f"pictures/{number:05d}.jpg"
    (folder / name).write_bytes(encode(scene))
    rng = random.Random(f"questions {seed} {number}")
    for place, question in enumerate(sample(rng, scene, dict.fromkeys(TASKS, 1.0), questions)):
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
    parser.add_argument("--count", type=int, required=True, metavar="N", help="pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--questions", type=int, default=8, metavar="N", help="of each picture (default: 8)")
    parser.add_argument("--variant", choices=list(VARIANTS), default="trained", help="kind of codes (default: trained)")
    args = parser.parse_args()
    try:
        for name in ("count", "questions"):
            if getattr(args, name) < 1:
                got = f"--{name} {getattr(args, name)}"
                raise InputError(got, expected="1 or more", fix=f"pass another --{name}")
        total = write(args.out, args.seed, args.count, args.questions, args.variant)
    except InputError as error:
        parser.error(str(error))
    print(f"{args.count} pictures and {total} questions in {args.out}")


if __name__ == "__main__":
    main()
