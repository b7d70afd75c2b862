"""Rows of requests, many at once: continuous batching, pictures and prompts that begin alike seen once.

A row's answer is the one that it would have alone, or first parts from it at a near-tie of the logits. What is drawn
for it at a temperature depends on the seed and the row's number, not on what is asked beside it. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hired_edge.errors import CheckpointError, HiredEdgeError, InputError, LimitError, NumericalError
from hired_runtime.batch.requests_file import BadRow, Row
from hired_runtime.continuous import Running
from hired_runtime.pipeline import Pipeline
from hired_runtime.prompt import question
from hired_runtime.request import Answer, Request
from hired_runtime.sampling import SamplingOptions


def lines(
    pipeline: Pipeline, rows: Iterable[Row | BadRow], options: Mapping[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Asks rows and gives (number, line of the output) as they are finished, which may be in another order.

    Args:
        rows: taken one by one, as soon as there is room.
        options: of `Request`, for every row.

    Raises:
        BundleError: the engine fails.
    """
    rows = iter(rows)
    running: dict[Running, Row] = {}
    batcher = pipeline.batcher
    with pipeline.turns.lock:
        pipeline.turns.take(None)
        batcher.clear()
        try:
            row = next(rows, None)
            while row is not None or running:
                while row is not None and batcher.free:
                    if isinstance(row, BadRow):
                        yield row.number, {"id": row.id, "error": row.reason}
                    else:
                        try:
                            running[batcher.start(_request(row, options))] = row
                        except (InputError, LimitError, CheckpointError, NumericalError) as error:
                            yield row.number, {"id": row.id, "error": _reason(error)}
                    row = next(rows, None)
                batcher.step()
                for each in [each for each in running if each not in batcher.running]:
                    done = running.pop(each)
                    if each.answer is not None:
                        yield done.number, {"id": done.id, **answered(each.answer)}
                    else:
                        assert each.error is not None
                        yield done.number, {"id": done.id, "error": _reason(each.error)}
        finally:
            batcher.clear()


def answered(answer: Answer) -> dict[str, Any]:
    """An answer as a line of the output has it, the id apart."""
    visual = sum(selection.visual_tokens for selection in answer.selections)
    prompt, made = answer.prompt_tokens + visual, len(answer.tokens)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "visual_tokens": visual,
        "cached_tokens": answer.cached_tokens,
    }
    return {"text": answer.text, "finish_reason": answer.finish_reason, "usage": usage}


def row_seed(seed: int, number: int) -> int:
    """The seed of a row: `hired-edge run --seed` draws the same with it."""
    return int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1, np.uint64)[0])


def _request(row: Row, options: Mapping[str, Any]) -> Request:
    sampling: SamplingOptions = options["sampling"]
    if sampling.temperature > 0:
        sampling = replace(sampling, seed=row_seed(sampling.seed, row.number))
    images = [str(path) for path in row.images]
    return Request(question(row.prompt, len(images)), images, **{**options, "sampling": sampling, "reuse": True})


def _reason(error: HiredEdgeError) -> str:
    return " ".join(f"{error.got}; expected {error.expected}".split())
