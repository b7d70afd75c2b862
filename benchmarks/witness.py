"""One answer of each side at every budget, kept for comparison: tokens, kept visual tokens, attention maps, logits.

Apart from the measurements, so that what is looked at costs them nothing. Each function is called in a process of its
own; PyTorch is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import hired_runtime
from benchmarks.job import Job
from benchmarks.results import Side
from hired_edge.budget import parse_budget
from hired_runtime.backend import Floats
from hired_runtime.pipeline import Timings
from hired_runtime.sampling import SamplingOptions


@dataclass(frozen=True, eq=False)
class Witness:
    """One row's answer at one budget.

    Args:
        side: who answered.
        tokens: as many as were asked for, whatever the model says.
        gather: what entered the language model, as `Selection.gather`; None where nothing is selected (`stock`).
        visual_tokens: how many.
        maps: allocation's and selection's attention (T, N); None of `stock`.
        logits: (steps, V) that each token was chosen by; None of our runtime.
    """

    side: Side
    tokens: list[int]
    gather: NDArray[np.int64] | None
    visual_tokens: int
    maps: tuple[Floats, Floats] | None
    logits: Floats | None


def ours(asked: tuple[Job, Sequence[str]], report: Callable[[str], None]) -> list[Witness]:
    """Our runtime's answers, opened once for the largest budget.

    Raises:
        HiredEdgeError: the bundle cannot be opened or asked so.
    """
    job, budgets = asked
    report("loading")
    largest = max(map(parse_budget, budgets), key=lambda budget: budget.percent or 0)
    model = hired_runtime.open(job.asked.bundle, visual_tokens=largest, images=1, backend=job.asked.backend)
    pipeline = model.pipeline
    found = []
    for budget in map(parse_budget, budgets):
        report(f"answering at {budget}")
        request = replace(job.asked, budget=str(budget)).request
        with pipeline.turns.lock:
            pipeline.turns.take(None)
            prompt = pipeline.prompt.render(request.messages, pictures=1)
            seen = pipeline.see(request.images, budget, request.newlines, Timings())
            (selection,) = seen.select(budget, request.policy, request.alpha, request.newlines)
            maps = (seen.maps[0].allocation.copy(), seen.maps[0].selection.copy())
            row = pipeline.splice(prompt, [selection], seen.gather)
            steps = pipeline.decode([row], SamplingOptions(), job.asked.new_tokens, Timings())
            tokens = [token for (token,) in steps]
        found.append(Witness("ours", tokens, selection.gather, selection.visual_tokens, maps, None))
    model.close()
    return found


def theirs(asked: tuple[Job, Sequence[str]], report: Callable[[str], None]) -> list[Witness]:
    """PyTorch's answers, of one model loaded once: `stock` at 100 %, `research` below.

    Raises:
        HiredEdgeError: out of memory, among others.
    """
    from benchmarks import pytorch
    from benchmarks.research import Research
    from benchmarks.stock import Stock

    job, budgets = asked
    report("loading")
    model = pytorch.load(job)
    stock, research = Stock(model), Research(model)
    found = []
    for budget in map(parse_budget, budgets):
        report(f"answering at {budget}")
        one = replace(job, asked=replace(job.asked, budget=str(budget)))
        with pytorch.memory_told():
            if budget.is_stock:
                tokens, logits = pytorch.answer(model, one, stock)
                visual = model.preparation.row(one.asked.request).tiling.stock_tokens
                found.append(Witness("stock", tokens, None, visual, None, logits))
            else:
                tokens, logits = pytorch.answer(model, one, research)
                (maps,), (selection,) = research.maps, research.selections
                gather = selection.gather
                found.append(Witness("research", tokens, gather, len(gather), (maps[0], maps[1]), logits))
    return found
