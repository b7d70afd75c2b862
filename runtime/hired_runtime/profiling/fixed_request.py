"""One request of a fixed amount of work, with the pipeline's own steps: see, select, splice, prefill, decode.

Decoding goes on past stop tokens to the number of new tokens, so that every iteration does the same. A batch is the
request B times: seen and spliced row by row, as B requests would be, then prefilled and decoded together. It knows
nothing of iterations, statistics or memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from hired_edge.budget import Budget
from hired_edge.limits import check_request
from hired_edge.selection import Selection
from hired_runtime.backend import Floats, Ints
from hired_runtime.pipeline import Pipeline, Timings
from hired_runtime.positions import check_reach, original_positions, positions_in_force
from hired_runtime.request import Request


@dataclass(frozen=True, eq=False)
class Done:
    """What one request came to.

    Args:
        ms: by stage, and "ttft" and "total"; a stage is the sum over the rows.
        selections: one a picture, of one row.
        text_tokens: of one row.
    """

    ms: dict[str, float]
    selections: list[Selection]
    text_tokens: int


def ask(pipeline: Pipeline, request: Request, budget: Budget, *, batch: int, new_tokens: int) -> Done:
    """Asks once.

    Args:
        request: pictures, messages and how visual tokens are chosen; its own budget and stop strings are not looked at.
        budget: visual tokens of a row.
        batch: B, at most what the bundle was opened with.
        new_tokens: of each row, 1 or more.

    Raises:
        InputError, LimitError, BundleError: as the steps of `Pipeline` do. The cache is then to be reset.
    """
    pictures = len(request.images)
    with pipeline.turns.lock:
        pipeline.turns.take(None)
        timings = Timings()
        rows: list[Floats] = []
        positions: list[Ints] = []
        for _ in range(batch):
            with timings.stage("preprocess"):
                prompt = pipeline.prompt.render(request.messages, pictures=pictures)
                text = len(prompt.ids)
                check_request(pipeline.limits, visual=0, text=text, new=new_tokens, batch=batch, images=pictures)
            seen = pipeline.see(request.images, budget, request.newlines, timings, request.partitions)
            with timings.stage("select"):
                selections = seen.select(budget, request.policy, request.alpha, request.newlines, request.partitions)
                rows.append(pipeline.splice(prompt, selections, seen.gather))
                if positions_in_force(request.policy, request.positions) == "original":
                    positions.append(original_positions(prompt, selections))
                    check_reach(pipeline.manifest.text, positions[-1], new_tokens)
        for _ in pipeline.decode(rows, request.sampling, new_tokens, timings, positions or None):
            pass
        timings.mark("total")
    timings.ms.setdefault("decode", 0.0)
    return Done(timings.ms, selections, text)
