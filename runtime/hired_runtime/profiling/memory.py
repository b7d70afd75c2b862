"""Memory of this process, of the system and of NVIDIA GPUs, sampled by a thread while something else is done.

It reads Linux's /proc and, where there is one, NVIDIA's management library. What lives shorter than the time between
two samples is not seen; neither is what swap has taken.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

from hired_runtime.board import meminfo
from hired_runtime.profiling.gpu_memory import GpuMemory
from hired_runtime.profiling.schema import Memory

INTERVAL_S = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


def process_bytes() -> int:
    """Resident set of this process: the second number of /proc/self/statm, in pages."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def process_high_water_bytes() -> int:
    """The largest resident set since this process began its program (VmHWM)."""
    rows = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(1024 * int(row[1]) for row in rows if row[0] == "VmHWM:")


def system_bytes() -> int:
    """What the machine's programs use: MemTotal - MemAvailable."""
    memory = meminfo.parse(Path("/proc/meminfo").read_text())
    assert memory is not None, "Linux always has MemTotal"
    return memory.total - memory.available


class MemorySampler:
    """A context manager: samples from entering to leaving, the base first and on the spot.

    Args:
        interval_s: between two samples.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.interval_s = interval_s
        self._gpus = GpuMemory()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, name="memory", daemon=True)
        self._samples = 0
        self._base = self._peak = self._since = (0, 0, 0)

    def __enter__(self) -> MemorySampler:
        self._base = self._peak = self._since = self._now()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._gpus.close()

    def mark(self) -> None:
        """Whatever peaks "of the requests" counts from here."""
        with self._lock:
            self._since = self._now()

    def result(self) -> Memory:
        """What was sampled so far, and once more now."""
        self._sample()
        gpus = self._gpus.found
        return Memory(
            interval_ms=1e3 * self.interval_s,
            samples=self._samples,
            process_base_bytes=self._base[0],
            process_peak_bytes=self._peak[0],
            process_requests_peak_bytes=self._since[0],
            process_high_water_bytes=process_high_water_bytes(),
            system_base_bytes=self._base[1],
            system_peak_bytes=self._peak[1],
            gpu_base_bytes=self._base[2] if gpus else None,
            gpu_peak_bytes=self._peak[2] if gpus else None,
        )

    def _sample_on(self) -> None:
        while not self._stop.wait(self.interval_s):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            now = self._now()
            self._samples += 1
            self._peak = _larger(self._peak, now)
            self._since = _larger(self._since, now)

    def _now(self) -> tuple[int, int, int]:
        """(process, system, GPUs)."""
        return process_bytes(), system_bytes(), self._gpus.used_bytes()


def _larger(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])
