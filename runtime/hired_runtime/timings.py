"""How long a request's stages take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("preprocess", "vision", "select", "prefill", "decode")


@dataclass
class Timings:
    """Milliseconds by stage; `ttft` and `total` count from the start of the request."""

    started: float = field(default_factory=time.perf_counter)
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, 1e3 * (time.perf_counter() - start))

    def add(self, name: str, ms: float) -> None:
        self.ms[name] = self.ms.get(name, 0.0) + ms

    def mark(self, name: str) -> None:
        self.ms[name] = 1e3 * (time.perf_counter() - self.started)
