"""Power, temperature and memory of a Jetson over time: `tegrastats` in the background, and what its samples add up to.

    with Sampler(interval_ms=100) as sampler:
        start = time.monotonic()
        work()
        end = time.monotonic()
    joules = sampler.energy_j(start, end)

Time is `time.monotonic()` throughout, taken when a line arrives. It does not know how old the sensors' reading was
then, nor the power of what lies outside the rails (on an AGX Orin: the carrier board).
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import HiredEdgeError
from hired_runtime.board.rails import board_power_mw, counted
from hired_runtime.board.tegrastats_line import Sample, parse_line

__all__ = ["COMMAND", "Sample", "Sampler", "available", "parse_line"]

COMMAND = ("tegrastats",)
_PATIENCE_S = 2.0  # for a child that was asked to end


def available(command: Sequence[str] = COMMAND) -> bool:
    """Whether the command is there to be run (it is on a Jetson, and nowhere else)."""
    return shutil.which(command[0]) is not None


class Sampler:
    """Runs `tegrastats --interval N` while the context is open. The child is ended however the context is left.

    Args:
        interval_ms: between two samples.
        command: the command, to which `--interval N` is added.

    Attributes:
        samples: what has arrived so far, oldest first. It stays after the context is closed.

    Raises:
        HiredEdgeError: on entering, if the command cannot be run.
    """

    def __init__(self, interval_ms: int = 100, command: Sequence[str] = COMMAND) -> None:
        self.samples: list[Sample] = []
        self._interval_s = interval_ms / 1000
        self._command = [*command, "--interval", str(interval_ms)]
        self._child: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Sampler:
        assert self._child is None, "a Sampler is entered once"
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise HiredEdgeError(
                f"{self._command[0]} cannot be run ({error.strerror})",
                expected="a Jetson, whose tegrastats reports power and temperature",
                fix="measure without power",
            ) from None
        try:
            self._reader = threading.Thread(target=self._read, args=(self._child,), daemon=True)
            self._reader.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        child = self._child
        assert child is not None
        assert child.stdout is not None
        try:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_PATIENCE_S)
        finally:  # also after a Ctrl-C while waiting
            child.kill()
            child.wait()
        if self._reader is not None and self._reader.ident is not None:
            self._reader.join(_PATIENCE_S)  # it ends with the pipe, unless a process of the child's still holds it
        if self._reader is None or not self._reader.is_alive():
            child.stdout.close()

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            sample = parse_line(line, time.monotonic())
            if sample is not None:
                self.samples.append(sample)

    @property
    def rails(self) -> tuple[str, ...]:
        """The rails that make up the board's power: `("VDD_IN",)`, or those that are summed; empty without any."""
        for sample in list(self.samples):
            if sample.power_mw:
                return counted(sample.power_mw)
        return ()

    def energy_j(self, start_s: float, end_s: float) -> float | None:
        """Joules that the board took from `start_s` to `end_s`: trapezoids through the samples.

        The ends lie between two samples, or take the value of the nearest one. None where a moment of the interval is
        too far from any sample (three intervals, at least half a second), or where no power is reported.
        """
        times, watts = self._power()
        if end_s <= start_s or not self._covered(times, start_s, end_s):
            return None
        inside = (times > start_s) & (times < end_s)
        at = np.concatenate([[start_s], times[inside], [end_s]])
        power = np.interp(at, times, watts)
        return float(np.sum(np.diff(at) * (power[1:] + power[:-1]) / 2))

    def power_w(self, start_s: float, end_s: float) -> float | None:
        """Mean power of the board in watts from `start_s` to `end_s`; None as `energy_j`."""
        energy = self.energy_j(start_s, end_s)
        return None if energy is None else energy / (end_s - start_s)

    def peak_power_w(self, start_s: float, end_s: float) -> float | None:
        """The highest sample in the interval, in watts; None where there is none. A shorter peak goes unseen."""
        times, watts = self._power()
        inside = watts[(times >= start_s) & (times <= end_s)]
        return float(inside.max()) if len(inside) else None

    def peak_temperature_c(self, start_s: float, end_s: float) -> float | None:
        """The highest temperature of any sensor in the interval; None where there is none."""
        samples = [sample for sample in list(self.samples) if start_s <= sample.time_s <= end_s]
        return max((value for sample in samples for value in sample.temperatures_c.values()), default=None)

    def _power(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times (S) in seconds and board power (S) in watts of the samples that report power."""
        pairs = [(sample.time_s, board_power_mw(sample.power_mw)) for sample in list(self.samples)]
        known = [(time_s, power / 1000) for time_s, power in pairs if power is not None]
        table = np.array(known, np.float64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def _covered(self, times: NDArray[np.float64], start_s: float, end_s: float) -> bool:
        """Whether every moment of the interval has a sample near it."""
        if not len(times):
            return False
        gaps, middles = np.diff(times), (times[1:] + times[:-1]) / 2  # a gap's middle is what is furthest from a sample
        within = gaps[(middles > start_s) & (middles < end_s)] / 2
        ends = [np.abs(times - moment).min() for moment in (start_s, end_s)]
        return bool(max(*ends, within.max(initial=0.0)) <= max(0.5, 3 * self._interval_s))
