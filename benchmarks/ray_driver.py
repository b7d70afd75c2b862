"""`python -m benchmarks.ray_driver`: rows a second that one driver of `batch --ray` takes (`--page`: docs/scaling.md).

Workers that wait instead of asking the model take next to no processor, as if each had a machine of its own; the driver
and Ray have this one. So more workers than cores can be had, and what bounds them is what would bound boards. A cluster
of two nodes: the driver's, and one with all workers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.command import at_least_one, guarded
from benchmarks.figures import put
from benchmarks.ray_machines import machines
from benchmarks.ray_page import PAGE, draw
from benchmarks.ray_runs import run
from demo.reports import table
from hired_edge.errors import InputError
from hired_runtime.profiling.machine import machine

_LONG_S = 45
"""Of a run, for workers that lose nothing."""
WHOSE = ("worker", "driver", "ray")
_STEADY = 0.5, 0.9
"""Shares of the parts between which the rate is taken: all workers have started, and none has ended."""


def measure(numbers: Sequence[int], wait_s: float) -> dict[str, Any]:
    """{machine, load, wait_s, runs}: of each number of workers {workers, rows, steady_rows_per_s, worker_ms, ...}.

    `worker_ms`, `driver_ms`, `ray_ms`: processor time for a row, what the start takes among it.
    """
    runs, load = [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        requests, output = Path(name) / "requests.jsonl", Path(name) / "answers"
        for workers in tqdm(numbers, desc="workers", unit="number", disable=None):
            rows = round(workers * _LONG_S / wait_s)
            with requests.open("w", encoding="utf-8") as file:
                for number in range(rows):
                    file.write(json.dumps({"id": number, "prompt": "What is on the table?"}) + "\n")
            with machines(1, cpus=workers) as cluster:
                waiting = ("benchmarks.ray_waiting", str(wait_s))
                rate = run(requests, output, workers, cluster.address, (), waiting)
            per_row = {f"{whose}_ms": 1e3 * getattr(rate, f"{whose}_s") / rows for whose in WHOSE}
            runs.append({"rows": rows, "steady_rows_per_s": steady(output), **per_row, **asdict(rate)})
    here = machine()
    return {"machine": f"{here.processor}, {here.cores} cores", "load": load, "wait_s": wait_s, "runs": runs}


def steady(output: Path) -> float:
    """Rows a second in the middle of a run, by when its parts were written."""
    import pyarrow.parquet

    parts = sorted(output.glob("part-*"), key=lambda path: path.stat().st_mtime_ns)
    begin, end = (round(share * (len(parts) - 1)) for share in _STEADY)
    rows = sum(pyarrow.parquet.read_metadata(path).num_rows for path in parts[begin + 1 : end + 1])
    seconds = (parts[end].stat().st_mtime_ns - parts[begin].stat().st_mtime_ns) / 1e9
    return rows / seconds


def page(found: dict[str, Any], command: Sequence[str]) -> str:
    """What stands in docs/scaling.md."""
    heads = ["workers", "rows/s", "of what they could", "processor time, ms a row: workers'", "driver's", "Ray's"]
    rows = []
    for each in found["runs"]:
        share = each["steady_rows_per_s"] * found["wait_s"] / each["workers"]
        times = [f"{each[f'{whose}_ms']:.2f}" for whose in WHOSE]
        rows.append([str(each["workers"]), f"{each['steady_rows_per_s']:.0f}", f"{100 * share:.0f} %", *times])
    last = found["runs"][-1]
    return (
        f"\n{found['machine']}, load {found['load']:.1f} before; workers that wait {found['wait_s']:g} s a row. "
        f"By `{' '.join(command)}`.\n\n"
        f"![Rows a second against workers that only wait](scaling-driver.png)\n\n{table(heads, rows)}\n"
        f"The driver's {last['driver_ms']:.2f} ms a row in the last of these runs, the start among them, are "
        f"{1e3 / last['driver_ms']:,.0f} rows a second of a processor.\n\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_driver", description=__doc__)
    parser.add_argument("--workers", default="1,4,16,32", metavar="N[,N]", help="(default: 1,4,16,32)")
    parser.add_argument("--wait", type=float, default=0.001, metavar="S", help="of a worker, a row (default: 0.001)")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/scaling.md")
    args = parser.parse_args()
    numbers = [int(part) if part.isdecimal() else 0 for part in args.workers.split(",")]
    for number in numbers:
        at_least_one("--workers", number)
    if not 1e-3 <= args.wait <= 1:
        raise InputError(f"--wait {args.wait:g}", expected="0.001 to 1", fix="pass another")
    found = measure(numbers, args.wait)
    text = page(found, ["python -m benchmarks.ray_driver", *sys.argv[1:]])
    print(text)
    if args.page:
        put(PAGE, "driver", text)
        rates = [each["steady_rows_per_s"] for each in found["runs"]]
        could = (1 / args.wait, "what they could")
        draw(PAGE.with_name("scaling-driver.png"), numbers, rates, "workers that wait", could)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("python -m benchmarks.ray_driver", main, "nothing was written"))
