"""The output of `batch --ray`, read back, and held against what one process says to the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset

import hired_runtime
from hired_runtime.prompt import question
from hired_runtime.request import Request
from hired_runtime.text import TextStream
from tests.tiny.alike import TOLERANCE, from_scratch
from tests.tiny.batches import read_rows, without_cached

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "visual_tokens", "cached_tokens")


def lines(folder: Path) -> list[dict[str, Any]]:
    """The rows of an output as `batch` writes them in JSON, each of them once, and in their order."""
    rows = pyarrow.dataset.dataset(folder).to_table().to_pylist()
    assert [row["row"] for row in rows] == list(range(1, len(rows) + 1))
    found = []
    for row in rows:
        if row["error"] is None:
            usage = {name: row[name] for name in COUNTS}
            answer = {name: row[name] for name in ("text", "finish_reason")}
            found.append({"id": row["id"], **answer, "usage": usage})
        else:
            assert {row[name] for name in ("text", "finish_reason", *COUNTS)} == {None}
            found.append({"id": row["id"], "error": row["error"]})
    return found


def check_as_one(
    found: list[dict[str, Any]],
    one: list[dict[str, Any]],
    requests: Path,
    bundle: Path,
    *,
    tolerance: float = TOLERANCE,
    visual_tokens: str | None = None,
    max_new_tokens: int | None = None,
) -> None:
    """Raises AssertionError unless each line is one process's, all but `cached_tokens`.

    What is asked beside a row may round its logits otherwise: a text may first part from the other's where the two
    largest logits are a near-tie, once in a hundred rows at most.

    Args:
        found, one: of the cluster and of one process.
        requests: JSON lines, greedy.
        tolerance: of the largest logit, see `alike`.
        visual_tokens, max_new_tokens: with which all were asked.
    """
    pairs = list(zip(without_cached(found), without_cached(one), strict=True))
    parted = [number for number, (got, expected) in enumerate(pairs) if got != expected]
    assert len(parted) <= -(-len(one) // 100), f"{len(parted)} rows are other ones, from row {parted[0] + 1} on"
    if not parted:
        return
    model, rows = hired_runtime.open(bundle, threads=1, visual_tokens=visual_tokens), read_rows(requests)
    for number in parted:
        (got, expected), row = pairs[number], rows[number]
        assert got["id"] == expected["id"]
        assert got["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
        request = Request(question(row["prompt"], 1), [requests.parent / row["image"]], max_new_tokens=max_new_tokens)
        for line in (got, expected):
            _check_near_tie(line["text"], model, request, tolerance)


def _check_near_tie(text: str, model: hired_runtime.Model, request: Request, tolerance: float) -> None:
    """The text is the request's alone, or begins as it and goes on otherwise where two logits are a near-tie."""
    answer, logits = from_scratch(model, request)
    if text == answer.text:
        return
    stream, shared = TextStream(model.pipeline.prompt.tokenizer), ""
    for token, each in zip(answer.tokens, logits, strict=False):
        second, first = np.sort(each)[-2:]
        if text.startswith(shared) and first - second <= tolerance * float(np.abs(each).max()):
            return
        shared += stream.push(token)
    raise AssertionError(f"{text!r} parts from {answer.text!r} where no two logits are a near-tie")
