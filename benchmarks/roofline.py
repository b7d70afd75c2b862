"""Both ceilings of this machine, measured with PyTorch, and the least times that they allow.

What a request has to compute and to move is the planner's arithmetic (`hired_edge.planner.roofline`): bounds, not
predictions. Preparation in numpy and the selection are not in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.results import Ceilings, Device, Figures, Least
from hired_edge.budget import Budget
from hired_edge.manifest import Precision, Target
from hired_edge.planner.footprint import Request
from hired_edge.planner.roofline import Work, roofline
from hired_edge.planner.shapes import ModelShape
from hired_edge.planner.storage import stored

SIZES: dict[Device, tuple[int, int]] = {"cuda": (8192, 2**30), "cpu": (512, 2**26)}
"""Of the square matrices, and bytes that are copied: enough to fill a large GPU, and many times its cache."""
REPEATS = 10


def measure(device: Device, report: Callable[[str], None]) -> Ceilings:
    """Best of `REPEATS` after as many to warm up, on random numbers. Called in a process of its own."""
    import torch

    from benchmarks.pytorch import DTYPES, memory_told

    size, count = SIZES[device]
    dtype = DTYPES[device]

    def seconds(function: Callable[[], object]) -> float:
        times = []
        for _ in range(2 * REPEATS):
            synchronise()
            start = time.perf_counter()
            function()
            synchronise()
            times.append(time.perf_counter() - start)
        return min(times[REPEATS:])

    def synchronise() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    with torch.inference_mode(), memory_told():
        report("a matrix product")
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = torch.empty_like(a)
        matmul = seconds(lambda: torch.matmul(a, b, out=product))
        report("a copy")
        source = torch.randint(0, 256, (count,), dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copy = seconds(lambda: target.copy_(source))
    return Ceilings(2 * size**3 / matmul, 2 * count / copy, size, count, str(dtype).removeprefix("torch."))


def seconds(work: Work, ceilings: Ceilings) -> float:
    """The longer of arithmetic and memory."""
    return max(work.flops / ceilings.flops_per_s, work.bytes / ceilings.bytes_per_s)


def least(
    model: ModelShape, target: Target, precision: Precision, found: Figures, batch: int, new: int, ceilings: Ceilings
) -> Least:
    """What the ceilings allow for a request of as many tokens as `found` tells of, in one picture of all tiles."""
    request = Request(text_tokens=found.text_tokens, new_tokens=new, batch=batch)
    limits = request.limits(model, Budget(absolute=found.visual_tokens))
    work = roofline(model, target, stored(model, target, precision), limits)
    first = seconds(work.vision, ceilings) + seconds(work.prefill, ceilings)
    return Least(round(1e3 * first, 4), round(batch / seconds(work.decode, ceilings), 4))
