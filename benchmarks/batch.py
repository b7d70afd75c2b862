"""`python -m benchmarks.batch`: rows a second of `hired-edge batch`, by rows at once, on the demonstration model.

The questions are written by `demo.scenes` first, from a seed: those about a picture one behind the other, as a data set
mostly has them, and the same in a random order. Every run is a process of its own and begins anew; the time is from its
first row to its last, the bundle's opening left out. A table, and JSON on the last line of stdout.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import at_least_one, guarded
from demo.scenes.__main__ import HELD_OUT_SEED, write
from hired_edge.errors import HiredEdgeError
from hired_runtime.profiling.machine import machine

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "demo/bundle"
BATCHES = (1, 2, 4, 8)
ORDERS = ("by picture", "shuffled")


def questions(folder: Path, pictures: int, each: int) -> dict[str, Path]:
    """Writes the requests in both orders, beside their pictures."""
    write(folder, HELD_OUT_SEED, pictures, each)
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [json.dumps({key: row[key] for key in ("id", "image", "prompt")}) + "\n" for row in rows]
    paths = {}
    for order in ORDERS:
        paths[order] = folder / f"{order}.jsonl"
        paths[order].write_text("".join(asked), encoding="utf-8")
        random.Random(0).shuffle(asked)
    return paths


def run(requests: Path, output: Path, batch: int, options: list[str]) -> dict[str, Any]:
    """The summary of one run, and the share of its prompts' positions that were cached.

    Raises:
        HiredEdgeError: it fails, or refuses a row.
    """
    command = ["batch", str(BUNDLE), str(requests), "-o", str(output), "--batch", str(batch), "--restart", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hired_edge", *command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise HiredEdgeError(f"it ended with status {done.returncode}", expected="0", fix="see what it said")
    summary = json.loads(done.stdout.splitlines()[-1])
    if summary["errors"]:
        raise HiredEdgeError(f"{summary['errors']} rows are errors", expected="none", fix="check the demonstration")
    usages = [json.loads(line)["usage"] for line in output.read_text(encoding="utf-8").splitlines()]
    cached, prompt = (sum(usage[name] for usage in usages) for name in ("cached_tokens", "prompt_tokens"))
    return {**summary, "cached": round(cached / prompt, 4)}


def measure(pictures: int, each: int, rounds: int, options: list[str]) -> dict[str, Any]:
    """{machine, rows, pictures, rounds, options, runs: [{order, batch, rows_per_second, cached}]}, median rates."""
    runs, rows = [], 0
    with tempfile.TemporaryDirectory() as name:
        asked = questions(Path(name) / "questions", pictures, each)
        for order, path in asked.items():
            for batch in BATCHES:
                found = [run(path, Path(name) / "answers.jsonl", batch, options) for _ in range(rounds)]
                rows = found[0]["rows"]
                rate = statistics.median(one["rows_per_second"] for one in found)
                runs.append({"order": order, "batch": batch, "rows_per_second": rate, "cached": found[0]["cached"]})
                print(f"{order}, {batch} at once: {rate:.1f} rows a second", file=sys.stderr)
    here = machine()
    return {
        "machine": f"{here.processor}, {here.cores} cores",
        "rows": rows,
        "pictures": pictures,
        "rounds": rounds,
        "options": options,
        "runs": runs,
    }


def table(found: dict[str, Any]) -> str:
    """Rows a second, and the share of prompts that was cached, by order and rows at once."""
    lines = [f"rows at once    {''.join(f'{order:>26}' for order in ORDERS)}"]
    for batch in BATCHES:
        cells = [
            f"{run['rows_per_second']:.1f} rows/s, {100 * run['cached']:.0f} % cached"
            for order in ORDERS
            for run in found["runs"]
            if (run["order"], run["batch"]) == (order, batch)
        ]
        lines.append(f"{batch:<16}{''.join(f'{cell:>26}' for cell in cells)}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--pictures", type=int, default=40, metavar="N", help="(default: 40)")
    parser.add_argument("--questions", type=int, default=10, metavar="N", help="about each picture (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which the median counts (default: 3)")
    parser.add_argument("--visual-tokens", metavar="B|P%", help="(default: as exported)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: its own choice)")
    args = parser.parse_args()
    for name in ("pictures", "questions", "rounds"):
        at_least_one(f"--{name}", getattr(args, name))
    given = {"--visual-tokens": args.visual_tokens, "--threads": args.threads}
    options = [part for flag, value in given.items() if value is not None for part in (flag, str(value))]
    found = measure(args.pictures, args.questions, args.rounds, options)
    print(f"{found['machine']}; {found['rows']} questions about {found['pictures']} pictures\n{table(found)}")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("python -m benchmarks.batch", main, "nothing was written"))
