"""`python -m benchmarks.ray_batch`: rows a second of `batch --ray` against workers (`--page`: docs/scaling.md).

A Ray cluster of as many nodes as there are workers, a processor each, all on this machine: where there are more
workers than cores, they share them, and that is where it must stop scaling. The demonstration model, 1 thread a worker;
beside it one process without Ray, which shows what Ray costs. What the processors did meanwhile is taken apart: the
workers' time, the command's own, and that of Ray's other processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.batch import questions
from benchmarks.command import at_least_one, guarded
from benchmarks.figures import put
from benchmarks.ray_machines import machines
from benchmarks.ray_page import PAGE, draw
from benchmarks.ray_runs import run
from demo.reports import table
from hired_runtime.profiling.machine import machine


def measure(most: int, pictures: int, each: int, rounds: int, options: Sequence[str]) -> dict[str, Any]:
    """{machine, load, rows, pictures, picture_bytes, rounds, options, rates}, a rate for each number of workers."""
    rates, load = [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = questions(folder / "questions", pictures, each)["by picture"]
        sizes = [path.stat().st_size for path in (folder / "questions/pictures").iterdir()]
        for workers in tqdm(range(most + 1), desc="workers", unit="number", disable=None):
            found = []
            for _ in range(rounds):
                if workers == 0:
                    found.append(run(asked, folder / "one.jsonl", 0, None, options))
                    continue
                with machines(workers) as cluster:
                    found.append(run(asked, folder / "many", workers, cluster.address, options))
            rates.append(sorted(found, key=lambda rate: rate.rows_per_s)[len(found) // 2])
    here = machine()
    return {
        "machine": f"{here.processor}, {here.cores} cores",
        "load": load,
        "rows": pictures * each,
        "pictures": pictures,
        "picture_bytes": round(statistics.mean(sizes)),
        "rounds": rounds,
        "options": list(options),
        "rates": [asdict(rate) for rate in rates],
    }


def page(found: dict[str, Any], command: Sequence[str]) -> str:
    """What stands in docs/scaling.md."""
    one, *many = found["rates"]
    heads = ["workers", "rows/s", "of one worker's", "command, s", "processor time, s: workers'", "driver's", "Ray's"]
    rows = []
    for rate in (one, *many):
        times = "" if rate is one else f"{rate['rows_per_s'] / many[0]['rows_per_s']:.2f}"
        name = "none: one process" if rate is one else str(rate["workers"])
        spent = [f"{rate[whose]:.1f}" for whose in ("worker_s", "driver_s", "ray_s")]
        rows.append([name, f"{rate['rows_per_s']:.0f}", times, f"{rate['total_s']:.1f}", *spent])
    return (
        f"\n{found['machine']}, load {found['load']:.1f} before; the demonstration model, {found['rows']} questions "
        f"about {found['pictures']} pictures, a thread a worker; median of {found['rounds']}. "
        f"By `{' '.join(command)}`.\n\n"
        f"![Rows a second against workers](scaling.png)\n\n"
        f"{table(heads, rows)}\n"
        f"A picture has {found['picture_bytes']} bytes on average; a row of the output has {one['answer_bytes']:.0f} "
        f"in JSON lines, {many[0]['answer_bytes']:.0f} in Parquet.\n\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_batch", description=__doc__)
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="at most (default: 4)")
    parser.add_argument("--pictures", type=int, default=500, metavar="N", help="(default: 500)")
    parser.add_argument("--questions", type=int, default=4, metavar="N", help="about each picture (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which the median counts (default: 3)")
    parser.add_argument("--visual-tokens", metavar="B|P%", help="(default: as exported)")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/scaling.md")
    args = parser.parse_args()
    for name in ("workers", "pictures", "questions", "rounds"):
        at_least_one(f"--{name}", getattr(args, name))
    options = [] if args.visual_tokens is None else ["--visual-tokens", args.visual_tokens]
    found = measure(args.workers, args.pictures, args.questions, args.rounds, options)
    text = page(found, ["python -m benchmarks.ray_batch", *sys.argv[1:]])
    print(text)
    if args.page:
        put(PAGE, "workers", text)
        one, *many = found["rates"]
        rates = [rate["rows_per_s"] for rate in many]
        draw(
            PAGE.with_name("scaling.png"),
            [rate["workers"] for rate in many],
            rates,
            "on a cluster",
            (rates[0], "as many times one worker"),
            (one["rows_per_s"], "one process without Ray"),
        )
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("python -m benchmarks.ray_batch", main, "nothing was written"))
