"""The most memory that a process takes to answer one request, the same way for both sides: its high-water mark.

Each is called in a process of its own. What is asked: two new tokens at a budget, for a batch of the same picture. The
mark is read once the model is open, and set back (Linux: clear_refs): PyTorch loads with a checkpoint mapped beside the
weights, which says nothing of answering. Two runs may differ by half a gigabyte: glibc holds freed blocks or does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.cpu.ours import PROMPT
from hired_edge.budget import parse_budget
from hired_runtime.profiling.memory import process_high_water_bytes

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


class Peaks(NamedTuple):
    """Bytes: while it answers, and until the model is open."""

    answering: int
    loading: int


def ours(job: Job) -> Peaks:
    """Of this runtime.

    Raises:
        HiredEdgeError: the bundle cannot be opened so.
    """
    import hired_runtime
    from hired_runtime.profiling.fixed_request import ask
    from hired_runtime.prompt import question
    from hired_runtime.request import Request

    model = hired_runtime.open(job.bundle, visual_tokens=job.budget, batch=job.batch, images=1, threads=job.threads)
    loading = _mark()
    request = Request(question(PROMPT, 1), [job.picture])
    ask(model.pipeline, request, parse_budget(job.budget), batch=job.batch, new_tokens=NEW_TOKENS)
    return Peaks(process_high_water_bytes(), loading)


def torch(job: Job) -> Peaks:
    """Of transformers: every visual token at 100 %, HiRED in PyTorch below.

    Raises:
        HiredEdgeError: out of memory.
    """
    import torch as pytorch_library

    from benchmarks import pytorch
    from benchmarks.cpu.torch_side import job_of
    from benchmarks.research import Research
    from benchmarks.stock import Stock

    pytorch_library.set_num_threads(job.threads)
    asked = job_of(job.checkpoint, job.bundle, job.picture, job.budget, job.batch, NEW_TOKENS)
    model = pytorch.load(asked)
    loading = _mark()
    side = Stock(model) if parse_budget(job.budget).is_stock else Research(model)
    with pytorch.memory_told():
        pytorch.ask(model, asked, side)
    return Peaks(process_high_water_bytes(), loading)


def _mark() -> int:
    """The high-water mark so far; from now on it begins at what is resident."""
    loading = process_high_water_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    return loading
