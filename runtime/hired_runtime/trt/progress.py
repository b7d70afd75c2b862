"""Where a build stands: TensorRT's nested phases as one percentage, and a way to stop it.

`Phases` is plain bookkeeping; `monitor` puts it behind TensorRT's IProgressMonitor, whose methods several threads call.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

OnProgress = Callable[[str, int], None]
"""Called with the innermost phase's name and the whole build's percentage, which never falls."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0
    inside: float = 0.0  # share of the step under way, by the phases inside it


class Phases:
    """The phases under way. Names are unique among them (IProgressMonitor's contract)."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self.percent = 0
        self.name = ""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._open[name] = _Phase(parent, max(1, steps))
        self.name = name

    def step(self, name: str, step: int) -> None:
        """Step `step` (from 0) of a phase is done."""
        phase = self._open.get(name)
        if phase is not None:
            phase.done, phase.inside = min(step + 1, phase.steps), 0.0
            self._pass_up(name)

    def finish(self, name: str) -> None:
        phase = self._open.pop(name, None)
        if phase is not None and phase.parent in self._open:
            self.name = phase.parent
        if not self._open:
            self.percent = 100

    def _pass_up(self, name: str) -> None:
        share, place = 0.0, name
        for _ in range(len(self._open)):  # no further: names that come twice could make parents of each other
            phase = self._open[place]
            phase.inside = max(phase.inside, share) if place != name else 0.0
            share = min(1.0, (phase.done + phase.inside) / phase.steps)
            if phase.parent not in self._open:
                break
            place = phase.parent
        self.percent = max(self.percent, int(100 * share))


def monitor(trt: Any, on_progress: OnProgress | None, stop: threading.Event) -> Any:
    """An IProgressMonitor that reports, and that ends the build once `stop` is set.

    The caller keeps it alive until the build is over: TensorRT holds no reference. What `on_progress` raises ends the
    build too, and is then found in `failure`: TensorRT would print it and drop it.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: Exception | None = None
            self._phases, self._lock, self._shown = Phases(), threading.Lock(), ("", -1)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)
                self._report()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name, step)
                self._report()
            return self.failure is None and not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

        def _report(self) -> None:
            shown = (self._phases.name, self._phases.percent)
            if on_progress is None or self.failure is not None or shown == self._shown:
                return
            self._shown = shown
            try:
                on_progress(*shown)
            except Exception as error:
                self.failure = error

    return Monitor()


@contextmanager
def line(label: str) -> Iterator[OnProgress | None]:
    """A line on stderr that is written over, if a terminal is there; it is gone when the build is over."""
    if not sys.stderr.isatty():
        yield None
        return

    def show(phase: str, percent: int) -> None:
        print(f"\r\033[K{label} {percent:3d} %  {phase[:40]}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
