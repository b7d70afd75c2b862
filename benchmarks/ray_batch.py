"""`python -m benchmarks.ray_batch`: rows a second of `batch --ray` against workers (`--page`: docs/scaling.md).

A Ray cluster of as many nodes as there are workers, a processor each, all on this machine: where there are more
workers than cores, they share them, and that is where it must stop scaling. The demonstration model, 1 thread a worker;
beside it one process without Ray, which shows what Ray costs. What the processors did meanwhile is taken apart: the
workers' time, and that of everything else (the driver, and Ray's own processes).
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from benchmarks.batch import questions
from benchmarks.command import at_least_one, guarded
from benchmarks.ray_machines import is_worker, machines
from demo.reports import table
from hired_edge.errors import HiredEdgeError, InputError
from hired_runtime.profiling.machine import machine
from hired_runtime.whole import whole

ROOT = Path(__file__).resolve().parents[1]
BUNDLE, PAGE, PLOT = ROOT / "demo/bundle", ROOT / "docs/scaling.md", ROOT / "docs/scaling.png"
_PLACE = re.compile(r"(<!-- figures: workers -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_SAMPLE_S = 0.2


@dataclass(frozen=True)
class Rate:
    """One run.

    Args:
        workers: 0 for one process without Ray.
        rows_per_s: from the first opened bundle to the last row.
        total_s: of the command, Ray's start and end among it.
        worker_s, other_s: processor time of the workers (without Ray: of the one process) and of everything else.
        answer_bytes: of the output, a row.
    """

    workers: int
    rows_per_s: float
    total_s: float
    worker_s: float
    other_s: float
    answer_bytes: float


class Meter(threading.Thread):
    """Processor time below this process, by whether a process is a worker; of one that ends, what it had lately."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self._first: dict[int, float] = {}
        self._last: dict[int, tuple[bool, float]] = {}
        self._look()
        self._first = {pid: spent for pid, (_, spent) in self._last.items()}
        self.start()

    def run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self._look()

    def stop(self) -> tuple[float, float]:
        """Seconds of workers, and of all others."""
        self._over.set()
        self.join()
        sums = [0.0, 0.0]
        for pid, (worker, spent) in self._last.items():
            sums[not worker] += spent - self._first.get(pid, 0.0)
        return sums[0], sums[1]

    def _look(self) -> None:
        for each in psutil.Process().children(recursive=True):
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            known, _ = self._last.get(each.pid, (False, 0.0))  # Ray names a process anew when its work is over
            self._last[each.pid] = known or is_worker(each.pid), times.user + times.system


def run(requests: Path, output: Path, workers: int, address: str | None, options: Sequence[str]) -> Rate:
    """One run of the command.

    Raises:
        HiredEdgeError: it fails, or refuses a row.
    """
    ray = [] if address is None else ["--ray", address, "--workers", str(workers)]
    command = ["batch", str(BUNDLE), str(requests), "-o", str(output), "--restart", "--json", "--threads", "1"]
    meter, begin = Meter(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "hired_edge", *command, *ray, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    total, (worker_s, other_s) = time.perf_counter() - begin, meter.stop()
    if done.returncode:
        raise HiredEdgeError(f"it ended with status {done.returncode}", expected="0", fix="see what it said")
    summary = json.loads(done.stdout.splitlines()[-1])
    if summary["errors"]:
        raise HiredEdgeError(f"{summary['errors']} rows are errors", expected="none", fix="check the demonstration")
    if address is None:
        worker_s, other_s, size = other_s, 0.0, output.stat().st_size
    else:
        size = sum(path.stat().st_size for path in output.glob("part-*"))
    return Rate(workers, summary["rows_per_second"], total, worker_s, other_s, size / summary["rows"])


def measure(most: int, pictures: int, each: int, rounds: int, options: Sequence[str]) -> dict[str, Any]:
    """{machine, rows, pictures, picture_bytes, rounds, options, rates}, a rate for each number of workers."""
    rates = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = questions(folder / "questions", pictures, each)["by picture"]
        sizes = [path.stat().st_size for path in (folder / "questions/pictures").iterdir()]
        for workers in tqdm(range(most + 1), desc="workers", unit="number", disable=None):
            found = []
            for _ in range(rounds):
                output = folder / ("one.jsonl" if workers == 0 else "many")
                if workers == 0:
                    found.append(run(asked, output, 0, None, options))
                    continue
                with machines(workers) as cluster:
                    found.append(run(asked, output, workers, cluster.address, options))
            rates.append(sorted(found, key=lambda rate: rate.rows_per_s)[len(found) // 2])
    here = machine()
    return {
        "machine": f"{here.processor}, {here.cores} cores",
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
    heads = ["workers", "rows/s", "of one worker", "command, s", "workers' processor time, s", "all else, s"]
    rows = []
    for rate in (one, *many):
        spent = f"{rate['worker_s']:.1f}", f"{rate['other_s']:.1f}"
        times = "" if rate is one else f"{rate['rows_per_s'] / many[0]['rows_per_s']:.2f}"
        name = "none: one process" if rate is one else str(rate["workers"])
        rows.append([name, f"{rate['rows_per_s']:.0f}", times, f"{rate['total_s']:.1f}", *spent])
    return (
        f"\n{found['machine']}; the demonstration model, {found['rows']} questions about {found['pictures']} pictures, "
        f"a thread a worker; median of {found['rounds']}. By `{' '.join(command)}`.\n\n"
        f"![Rows a second against workers](scaling.png)\n\n"
        f"{table(heads, rows)}\n"
        f"A picture has {found['picture_bytes']} bytes on average, its {found['rows'] // found['pictures']} answers "
        f"{many[0]['answer_bytes'] * found['rows'] / found['pictures']:.0f} in Parquet.\n\n"
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """Rows a second against workers, beside as many times one worker's.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    one, *many = found["rates"]
    figure: Figure = Figure(figsize=(5.4, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    workers = [rate["workers"] for rate in many]
    axes.plot(workers, [rate["rows_per_s"] for rate in many], "o-", color="#0072B2", label="on a cluster")
    axes.plot(
        workers, [many[0]["rows_per_s"] * count for count in workers], ":", color="#888888", label="as many times"
    )
    axes.axhline(one["rows_per_s"], color="#D55E00", linewidth=1, label="one process without Ray")
    axes.set_title("rows a second", fontsize=11, loc="left")
    axes.set_xlabel("workers")
    axes.set_xticks(workers)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.legend(frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with whole(path) as partial:
        partial.write_bytes(buffer.getvalue())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_batch", description=__doc__)
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="at most (default: 4)")
    parser.add_argument("--pictures", type=int, default=1000, metavar="N", help="(default: 1000)")
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
        old = PAGE.read_text(encoding="utf-8")
        if not _PLACE.search(old):
            raise InputError(f"{PAGE} has no place for figures", expected="its comments", fix="put them back")
        with whole(PAGE) as partial:
            partial.write_text(_PLACE.sub(lambda match: match[1] + text + match[2], old), encoding="utf-8")
        draw(found, PLOT)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("python -m benchmarks.ray_batch", main, "nothing was written"))
