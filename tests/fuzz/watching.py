"""Runs a worker and watches it: what it has done, and what ended it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.fuzz.slot import Figures, Slot
from tests.fuzz.surface import ROOT
from tests.fuzz.worker import ESCAPED, SLOW, SWOLLEN

STUCK_S, STARTING_S = 10.0, 180.0
"""Of processor time, without a new input: it hangs."""
WAITING_S = 300.0
"""By the clock: it waits for what does not come."""
GROWTH_BYTES = {"atheris": 128 * 2**20, "seeded": 32 * 2**20}
"""From a tenth of the inputs to the end; more is a leak (of 380 bytes an input, in 100,000). libFuzzer keeps every
input that reached something new, up to 256 KiB each: what leaks less than that is for the other engine to find."""
_WORDS = {
    0: "no finding",
    ESCAPED: "something else than the project's own errors came out",
    SLOW: "an input took over a second",
    SWOLLEN: "an input took more memory than it may",
}
_TAIL = 6000


@dataclass(frozen=True)
class Outcome:
    """Of one surface.

    Args:
        figures: as far as it came.
        finding: what is wrong; None: nothing.
        data: the input that did it, if it was one.
        log: the end of what the worker wrote.
    """

    name: str
    figures: Figures
    finding: str | None = None
    data: bytes | None = None
    log: str = ""


def watched(name: str, engine: str, arguments: list[str], show: Callable[[Figures], None]) -> Outcome:
    """Runs a worker to its end.

    Args:
        name: the surface's.
        engine: one of `ENGINES`.
        arguments: the worker's others.
        show: is told the figures every half second.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = Path(place)
        Slot.create(folder / "slot")
        slot, log = Slot(folder / "slot"), folder / "log"
        path = os.pathsep.join(str(ROOT / part) for part in (".", "export", "runtime"))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "RUST_BACKTRACE": "0",
        }
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.worker",
            name,
            str(folder / "slot"),
            "--engine",
            engine,
            *arguments,
        ]
        with log.open("wb") as file:
            worker = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        try:
            stuck = _wait(worker, slot, show)
        finally:
            worker.kill()
            worker.wait()
        figures, text = slot.figures, log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
        finding = (
            f"an input took over {STUCK_S:.0f} s, or waited for {WAITING_S:.0f}"
            if stuck
            else _finding(worker.returncode, figures, engine)
        )
        one = stuck or worker.returncode != 0
        return Outcome(name, figures, finding, slot.data if finding and one else None, text if finding else "")


def kept(outcome: Outcome, folder: Path) -> Path | None:
    """The file that a finding's input is left in."""
    if outcome.data is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.name}-{hashlib.sha256(outcome.data).hexdigest()[:10]}"
    path.write_bytes(outcome.data)
    return path


def _wait(worker: subprocess.Popen[bytes], slot: Slot, show: Callable[[Figures], None]) -> bool:
    """Until it ends; whether it had to be ended, which makes it write where it is."""
    process = psutil.Process(worker.pid)
    inputs, since, spent = 0, time.monotonic(), 0.0
    while True:
        try:
            worker.wait(0.5)
            return False
        except subprocess.TimeoutExpired:
            pass
        figures = slot.figures
        show(figures)
        now = sum(process.cpu_times()[:2])
        if figures.inputs != inputs:
            inputs, since, spent = figures.inputs, time.monotonic(), now
        elif now - spent > (STUCK_S if figures.begun else STARTING_S) or time.monotonic() - since > WAITING_S:
            worker.send_signal(signal.SIGABRT)
            worker.wait(10)
            return True


def _finding(status: int, figures: Figures, engine: str) -> str | None:
    if status < 0:
        return f"the process was ended by {signal.Signals(-status).name}"
    if status:
        return _WORDS.get(status, f"the worker ended with status {status}")
    grown = figures.memory - figures.memory_early
    return f"memory grew by {grown / 2**20:.0f} MiB" if grown > GROWTH_BYTES[engine] else None
