"""What this machine does at best: a float32 product of the decoder's own shape, a copy, and a sum. Called in a process
of its own, since it imports PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cpu.results import Ceilings

COPY_BYTES = 2**28
REPEATS = 7


@dataclass(frozen=True)
class Job:
    """The product's sizes (rows, inputs, outputs), and the threads."""

    product: tuple[int, int, int]
    threads: int


def measure(job: Job) -> Ceilings:
    """Best of `REPEATS` after one to warm up."""
    import torch

    torch.set_num_threads(job.threads)
    rows, inputs, outputs = job.product
    with torch.inference_mode():
        a, b = torch.randn(rows, inputs), torch.randn(inputs, outputs)
        product = torch.empty(rows, outputs)
        source = torch.randint(0, 256, (COPY_BYTES,), dtype=torch.uint8)
        target = torch.empty_like(source)
        flops = 2 * rows * inputs * outputs / _best(lambda: torch.matmul(a, b, out=product))
        moved = 2 * COPY_BYTES / _best(lambda: target.copy_(source))
        read = COPY_BYTES / _best(source.view(torch.float32).nan_to_num_(0).sum)
    return Ceilings(flops, moved, read, job.product, COPY_BYTES)


def _best(function: Callable[[], object]) -> float:
    function()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
