"""One run of `hired-edge batch`, with Ray or without, and whose processor time it took. For the benchmarks of Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.ray_machines import is_worker
from hired_edge.errors import HiredEdgeError

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "demo/bundle"
_SAMPLE_S = 0.2


@dataclass(frozen=True)
class Rate:
    """One run.

    Args:
        workers: 0 for one process without Ray.
        rows_per_s: from the first opened bundle to the last row.
        total_s: of the command, Ray's connection and the workers' start among it.
        worker_s, driver_s, ray_s: processor time of the workers, of the command's own process, and of Ray's others.
        answer_bytes: of the output, a row.
    """

    workers: int
    rows_per_s: float
    total_s: float
    worker_s: float
    driver_s: float
    ray_s: float
    answer_bytes: float


class Meter(threading.Thread):
    """Processor time below this process since it was made; of a process that ends, what it had lately."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self._workers: set[int] = set()
        self._first = dict[int, float]()
        self._last = dict[int, float]()
        self._look()
        self._first = dict(self._last)
        self.start()

    def run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self._look()

    def stop(self, driver: int) -> tuple[float, float, float]:
        """Seconds of workers, of the process `driver`, and of all others."""
        self._over.set()
        self.join()
        spent = {pid: last - self._first.get(pid, 0.0) for pid, last in self._last.items()}
        own = spent.pop(driver, 0.0)
        workers = sum(seconds for pid, seconds in spent.items() if pid in self._workers)
        return workers, own, sum(spent.values()) - workers

    def _look(self) -> None:
        for each in psutil.Process().children(recursive=True):
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            if is_worker(each.pid):  # Ray names a process anew when its work is over
                self._workers.add(each.pid)
            self._last[each.pid] = times.user + times.system


def run(
    requests: Path,
    output: Path,
    workers: int,
    address: str | None,
    options: Sequence[str],
    module: Sequence[str] = ("hired_edge",),
) -> Rate:
    """One run, which begins anew.

    Args:
        address: of a cluster; None = one process without Ray.
        options: of the command, beside its own.
        module: that is the command, and its first arguments.

    Raises:
        HiredEdgeError: it fails, or refuses a row.
    """
    ray = [] if address is None else ["--ray", address, "--workers", str(workers)]
    command = ["batch", str(BUNDLE), str(requests), "-o", str(output), "--restart", "--json", "--threads", "1"]
    meter, begin = Meter(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *module, *command, *ray, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        stdout, _ = process.communicate()
    total, (worker_s, driver_s, ray_s) = time.perf_counter() - begin, meter.stop(process.pid)
    if process.returncode:
        raise HiredEdgeError(f"it ended with status {process.returncode}", expected="0", fix="see what it said")
    summary = json.loads(stdout.splitlines()[-1])
    if summary["errors"]:
        raise HiredEdgeError(f"{summary['errors']} rows are errors", expected="none", fix="check the demonstration")
    files = [output] if address is None else list(output.glob("part-*"))
    size = sum(path.stat().st_size for path in files)
    return Rate(workers, summary["rows_per_second"], total, worker_s, driver_s, ray_s, size / summary["rows"])
