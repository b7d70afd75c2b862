"""`python -m benchmarks.soak`: hours of mixed requests at random budgets against one server.

`--page` writes docs/reliability.md's section. The server is a process of its own over the demonstration model. Clients
ask about new pictures and known ones, go on with conversations, leave in the middle of an answer, send what is refused,
and move the page's slider. Every answer of a fixed set that was asked one by one at the start has to come back so.
Each `--every` seconds the server's resident memory, file descriptors and threads are counted; at the end they are
counted once more at rest. The run fails if an answer was another one, if memory grew by more than `GROWTH`, or if the
server at rest has more descriptors than it began with, or more threads than it had early in the run: a pool keeps those
that it once had.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks import figures, soak_plot
from benchmarks.command import at_least_one, guarded
from benchmarks.serving import ROOT, served
from benchmarks.soak_clients import Client, Reference, references
from hired_edge.errors import HiredEdgeError
from hired_runtime.profiling.machine import machine

PAGE, PLOT = ROOT / "docs/reliability.md", ROOT / "docs/soak.png"
SETTLED = 0.5
"""Of the run, after which caches and the allocator's pools are full."""
GROWTH = 0.01
"""Of resident memory, from once settled to the last tenth, that an allocator may take without a leak."""
REST_S = 3.0
"""Until connections that clients have left are closed."""


@dataclass(frozen=True)
class Sample:
    """The server at one moment. `resident`: bytes."""

    seconds: float
    resident: int
    descriptors: int
    threads: int
    requests: int


def sample(process: psutil.Process, started: float, requests: int) -> Sample:
    return Sample(
        time.monotonic() - started, process.memory_info().rss, process.num_fds(), process.num_threads(), requests
    )


def soak(address: str, pid: int, asked: list[Reference], minutes: float, clients: int, every: float) -> dict[str, Any]:
    """Runs the clients, and counts what they met.

    Raises:
        HiredEdgeError: a request was answered otherwise than the server's documentation says.
    """
    process, started = psutil.Process(pid), time.monotonic()
    counts: Counter[str] = Counter()
    errors: list[Exception] = []
    stop, lock = threading.Event(), threading.Lock()

    def run(number: int) -> None:
        client = Client(address, asked, random.Random(number))
        try:
            while not stop.is_set():
                kind = client.one()
                with lock:
                    counts[kind] += 1
        except Exception as error:
            errors.append(error)
            stop.set()
        finally:
            client.close()

    before = sample(process, started, 0)
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    samples: list[Sample] = []
    try:
        with tqdm(total=round(60 * minutes), desc="soak", unit="s", disable=None) as bar:
            while not stop.wait(every) and (spent := time.monotonic() - started) < 60 * minutes:
                samples.append(sample(process, started, counts.total()))
                bar.set_postfix_str(f"{counts.total()} requests, {samples[-1].resident / 2**20:.1f} MiB", refresh=False)
                bar.update(round(spent) - bar.n)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    if errors:
        raise errors[0]
    time.sleep(REST_S)
    after = sample(process, started, counts.total())
    return {
        "counts": dict(counts),
        "before": asdict(before),
        "after": asdict(after),
        "samples": [*map(asdict, samples)],
    }


def settled(samples: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """The first and the last tenth of what was counted, once settled: medians of each are compared."""
    values = [each[name] for each in samples[int(SETTLED * len(samples)) :]]
    tenth = max(1, len(values) // 10)
    return values[:tenth], values[-tenth:]


def page(found: dict[str, Any], command: list[str]) -> str:
    """What stands in docs/reliability.md."""
    samples, counts, before, after = (found[name] for name in ("samples", "counts", "before", "after"))
    early, late = (float(np.median(each)) / 2**20 for each in settled(samples, "resident"))
    most = max(each["resident"] for each in samples) / 2**20
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items(), key=lambda each: -each[1]))
    return (
        f"\n{found['machine']}; {samples[-1]['seconds'] / 60:.0f} minutes, {found['clients']} clients, the "
        f"demonstration model with {found['rows']} rows. By `{' '.join(command)}`.\n\n"
        f"![Resident memory, file descriptors and threads over the run](soak.png)\n\n"
        f"{sum(counts.values()):,} requests: {kinds}. Of the {found['references']} answers known from the start, "
        f"{counts.get('known', 0):,} repetitions were all the same.\n\n"
        f"| | from the middle on | at the end | most | growth |\n| --- | --- | --- | --- | --- |\n"
        f"| resident, MiB | {early:.1f} | {late:.1f} | {most:.1f} | {100 * (late / early - 1):.2f} % |\n\n"
        f"At rest before and after: {before['descriptors']} and {after['descriptors']} file descriptors, "
        f"{before['threads']} and {after['threads']} threads.\n\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120, metavar="M", help="(default: 120)")
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="(default: 4)")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="answers at once (default: 4)")
    parser.add_argument("--every", type=float, default=10, metavar="S", help="seconds between two counts (default: 10)")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/reliability.md")
    args = parser.parse_args()
    for name in ("clients", "rows"):
        at_least_one(f"--{name}", getattr(args, name))
    if not (args.every > 0 and 20 * args.every <= 60 * args.minutes):
        raise HiredEdgeError(
            f"{args.minutes} minutes, counted each {args.every} s", expected="twenty counts or more", fix="soak longer"
        )
    with served(args.rows, "100%") as (address, pid):
        asked = references(address)
        found = soak(address, pid, asked, args.minutes, args.clients, args.every)
    here = machine()
    found |= {
        "machine": f"{here.processor}, {here.cores} cores",
        "clients": args.clients,
        "rows": args.rows,
        "references": len(asked),
    }
    text = page(found, ["python -m benchmarks.soak", *sys.argv[1:]])
    print(text)
    if args.page:
        figures.put(PAGE, "soak", text)
        soak_plot.draw(found, PLOT)
    print(json.dumps(found))
    early = settled(found["samples"], "threads")[0]
    most = {"descriptors": found["before"]["descriptors"], "threads": max(early)}
    worse = [name for name, number in most.items() if found["after"][name] > number]
    memory = [float(np.median(each)) for each in settled(found["samples"], "resident")]
    worse += ["memory"] if memory[1] > (1 + GROWTH) * memory[0] else []
    if worse:
        raise HiredEdgeError(f"more {' and '.join(worse)} at the end", expected="as many", fix="look for a leak")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("python -m benchmarks.soak", main, "nothing was written"))
