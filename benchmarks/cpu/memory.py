"""The most memory that a process takes to answer one request, the same way for both sides: its high-water mark.

Each is called in a process of its own. What is asked: two new tokens at a budget, for a batch of the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cpu.ours import PROMPT
from hired_edge.budget import parse_budget

NEW_TOKENS = 2


@dataclass(frozen=True)
class Job:
    """One cell of the table."""

    checkpoint: str
    bundle: str
    picture: str
    budget: str
    batch: int
    threads: int


def ours(job: Job) -> int:
    """Bytes of this runtime.

    Raises:
        HiredEdgeError: the bundle cannot be opened so.
    """
    import hired_runtime
    from hired_runtime.profiling.fixed_request import ask
    from hired_runtime.profiling.memory import process_high_water_bytes
    from hired_runtime.prompt import question
    from hired_runtime.request import Request

    model = hired_runtime.open(job.bundle, visual_tokens=job.budget, batch=job.batch, images=1, threads=job.threads)
    request = Request(question(PROMPT, 1), [job.picture])
    ask(model.pipeline, request, parse_budget(job.budget), batch=job.batch, new_tokens=NEW_TOKENS)
    return process_high_water_bytes()


def torch(job: Job) -> int:
    """Bytes of transformers: every visual token at 100 %, HiRED in PyTorch below.

    Raises:
        HiredEdgeError: out of memory.
    """
    import torch as pytorch_library

    from benchmarks import pytorch
    from benchmarks.cpu.torch_side import job_of
    from benchmarks.research import Research
    from benchmarks.stock import Stock
    from hired_runtime.profiling.memory import process_high_water_bytes

    pytorch_library.set_num_threads(job.threads)
    asked = job_of(job.checkpoint, job.bundle, job.picture, job.budget, job.batch, NEW_TOKENS)
    model = pytorch.load(asked)
    side = Stock(model) if parse_budget(job.budget).is_stock else Research(model)
    with pytorch.memory_told():
        pytorch.ask(model, asked, side)
    return process_high_water_bytes()
