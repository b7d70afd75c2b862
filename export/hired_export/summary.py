"""What an export took, in one line: bytes, seconds by stage, and the peak memory of both of its processes."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field

from hired_edge.bundle import bundle_bytes
from hired_edge.manifest import Manifest

UNIT = 1 if sys.platform == "darwin" else 1024
"""Of ru_maxrss, in bytes."""


@dataclass
class Stages:
    """Seconds since it was made, and those of each stage that was added."""

    start: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = seconds

    def line(self, manifest: Manifest) -> str:
        """What is to be said of a bundle that was just written.

        Peaks are the system's record (ru_maxrss): of this process since its start, and of the largest child, whose
        record begins with what this process held when it started it.
        """
        stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.seconds.items())
        own, checking = map(_peak, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return (
            f"{bundle_bytes(manifest) / 1e9:.2f} GB in {time.monotonic() - self.start:.0f} s ({stages}); "
            f"peak memory {own:.2f} GiB, of the parity check {checking:.2f} GiB"
        )


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * UNIT / 2**30
