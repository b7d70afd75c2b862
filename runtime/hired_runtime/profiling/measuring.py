"""What the process of one budget does: open the bundle, warm up, ask again and again, and tell what that took.

Runs in a process of its own, so that its peak of memory is that budget's. It knows nothing of other budgets or files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hired_edge.budget import parse_budget
from hired_edge.bundle import bundle_bytes, read_manifest
from hired_edge.selection import Selection
from hired_runtime import model as models
from hired_runtime.profiling.fixed_request import Done, ask
from hired_runtime.profiling.memory import MemorySampler
from hired_runtime.profiling.schema import Load, Memory, Visual
from hired_runtime.prompt import question
from hired_runtime.request import Request
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted


@dataclass(frozen=True)
class Job:
    """One budget's share of a profile. Fields as in `runner.Plan`."""

    bundle: str
    budget: str
    prompt: str
    images: tuple[str, ...]
    policy: str
    alpha: str
    newlines: str | None
    batch: int
    new_tokens: int
    threads: int | None
    backend: str | None
    warmup: int
    iterations: int
    public_keys: tuple[PublicKey, ...] | None = None

    @property
    def request(self) -> Request:
        """Raises InputError where the options are none, or do not go together."""
        return Request(
            question(self.prompt, len(self.images)),
            self.images,
            visual_tokens=self.budget,
            policy=self.policy,
            alpha=self.alpha,
            newlines=self.newlines,
            max_new_tokens=self.new_tokens,
        )


@dataclass(frozen=True)
class Measured:
    """What a job found.

    Args:
        ms: of each iteration, by stage, and "ttft" and "total".
        window_s: from the first timed iteration's start to the last one's end, by `time.monotonic()`.
        engine: the library, its version, and what it runs on.
    """

    visual: Visual
    text_tokens: int
    max_sequence_length: int
    cache_bytes: int
    load: Load
    ms: tuple[dict[str, float], ...]
    memory: Memory
    window_s: tuple[float, float]
    engine: str


def measure(job: Job, report: Callable[[str], None]) -> Measured:
    """Measures; `report` is told how far it has got.

    Raises:
        HiredEdgeError: the bundle cannot be opened, or the request is refused.
    """
    request, budget = job.request, parse_budget(job.budget)
    with MemorySampler() as memory:
        model, load = _load(job, report)
        memory.mark()

        def once() -> Done:
            return ask(model.pipeline, request, budget, batch=job.batch, new_tokens=job.new_tokens)

        for done in range(job.warmup):
            report(f"warm-up {done + 1} of {job.warmup}")
            once()
        found: list[Done] = []
        start = time.monotonic()
        for done in range(job.iterations):
            report(f"iteration {done + 1} of {job.iterations}")
            found.append(once())
        window = start, time.monotonic()
        measured = Measured(
            visual=_visual(found[0].selections),
            text_tokens=found[0].text_tokens,
            max_sequence_length=model.pipeline.backend.slots,
            cache_bytes=model.cache_bytes,
            load=load,
            ms=tuple(each.ms for each in found),
            memory=memory.result(),
            window_s=window,
            engine=model.pipeline.backend.name,
        )
        model.close()
    return measured


def _load(job: Job, report: Callable[[str], None]) -> tuple[models.Model, Load]:
    total = bundle_bytes(read_manifest(Path(job.bundle), trusted(job.public_keys)))
    start = verified = time.perf_counter()
    done = shown = 0
    report("loading")

    def on_bytes(count: int) -> None:
        nonlocal done, shown, verified
        done, verified = done + count, time.perf_counter()
        if done - shown >= 2**28:  # less is hashed in a blink
            shown = done
            report(f"verifying {100 * done // total} %")

    model = models.open(
        job.bundle,
        visual_tokens=job.budget,
        batch=job.batch,
        images=len(job.images),
        threads=job.threads,
        backend=job.backend,
        public_keys=job.public_keys,
        rehash=True,  # every budget opens as the first one does
        on_bytes=on_bytes,
    )
    end = time.perf_counter()
    return model, Load(round(1e3 * (verified - start), 3), round(1e3 * (end - start), 3))


def _visual(selections: list[Selection]) -> Visual:
    return Visual(
        total=sum(each.tiling.stock_tokens for each in selections),
        eligible=sum(each.eligible for each in selections),
        budget=sum(each.budget for each in selections),
        kept=sum(each.kept for each in selections),
        newlines=sum(each.newlines for each in selections),
    )
