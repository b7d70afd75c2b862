"""Questions about one picture at several settings: seen once, then answered a batch of rows at a time, greedily.

A batch holds rows of similar length, whatever their settings, so that little of a prefill is padding. Rows do not see
each other, but shapes are not those of a request alone: a row's tokens are the same as alone, or first diverge at a
near-tie of the logits. Knows nothing of scores, files or data sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hired_edge.budget import Budget
from hired_edge.selection import Selection
from hired_runtime.backend import Ints
from hired_runtime.evaluation.settings import Key
from hired_runtime.pictures import PictureSource
from hired_runtime.pipeline import Pipeline, Timings
from hired_runtime.positions import check_reach, original_positions
from hired_runtime.prompt import EncodedPrompt
from hired_runtime.sampling import SamplingOptions
from hired_runtime.text import TextStream

_MOST_PADDING = 1.25
"""The longest row of a batch against its shortest."""


@dataclass(frozen=True, eq=False)
class Job:
    """One question at one setting.

    Args:
        line: what the question is known by.
        prompt: encoded, with a place for one picture.
        key: the setting's.
    """

    line: int
    prompt: EncodedPrompt
    key: Key


@dataclass(frozen=True)
class RowAnswer:
    """A job's answer: generated token ids, a stop token included, their text, and the picture's visual tokens."""

    job: Job
    tokens: list[int]
    text: str
    visual_tokens: int


def answer(
    pipeline: Pipeline,
    picture: PictureSource,
    jobs: Sequence[Job],
    largest: Budget,
    *,
    new_tokens: int,
    batch: int,
) -> list[RowAnswer]:
    """Answers every job about one picture; the vision tower runs once.

    Args:
        largest: no job has a larger budget.
        new_tokens: at most, for each answer.
        batch: rows at once, at most what the bundle was opened with.

    Raises:
        InputError: the picture cannot be read.
        NoSelectionError: a budget that a policy cannot keep to for this picture.
        LimitError: a limit of the opening.
        BundleError: the engine fails.
    """
    with pipeline.turns.lock:
        pipeline.turns.take(None)
        partitions = "base" if all(job.key.partitions == "base" for job in jobs) else "all"
        seen = pipeline.see([picture], largest, None, Timings(), partitions)
        selections: dict[Key, list[Selection]] = {}
        for key in dict.fromkeys(job.key for job in jobs):
            budget, alpha = key.parsed_budget, key.alpha or 0.5
            selections[key] = seen.select(budget, key.policy, alpha, key.newlines, key.partitions)
        answers: dict[Job, RowAnswer] = {}
        for rows in _batches(jobs, selections, batch):
            embeds = [pipeline.splice(job.prompt, selections[job.key], seen.gather) for job in rows]
            positions = _positions(pipeline, rows, selections, new_tokens)
            steps = pipeline.decode(embeds, SamplingOptions(), new_tokens, Timings(), positions)
            try:
                tokens = list(_until_all_stop(pipeline, steps))
            except BaseException:
                pipeline.backend.language.reset()  # as after any request that ended in error
                raise
            for job, *own in zip(rows, *tokens, strict=True):
                visual = sum(selection.visual_tokens for selection in selections[job.key])
                answers[job] = RowAnswer(job, *_until_stop(pipeline, own), visual)
    return [answers[job] for job in jobs]


def _positions(
    pipeline: Pipeline, rows: Sequence[Job], selections: dict[Key, list[Selection]], new_tokens: int
) -> list[Ints] | None:
    """Of every row, where one of them does not count from 0 without gaps."""
    if all(job.key.positions == "compact" for job in rows):
        return None
    found = []
    for job in rows:
        own = original_positions(job.prompt, selections[job.key])
        if job.key.positions == "original":
            check_reach(pipeline.manifest.text, own, new_tokens)
            found.append(own)
        else:
            found.append(np.arange(len(own)))
    return found


def _batches(jobs: Sequence[Job], selections: dict[Key, list[Selection]], batch: int) -> Iterator[list[Job]]:
    """The jobs by falling length, cut where a batch is full or the next row much shorter than the first."""

    def length(job: Job) -> int:
        return len(job.prompt.ids) + sum(selection.visual_tokens for selection in selections[job.key])

    rows: list[Job] = []
    for job in sorted(jobs, key=length, reverse=True):
        if rows and (len(rows) == batch or length(rows[0]) > _MOST_PADDING * length(job)):
            yield rows
            rows = []
        rows.append(job)
    if rows:
        yield rows


def _until_all_stop(pipeline: Pipeline, steps: Iterator[list[int]]) -> Iterator[list[int]]:
    """The steps up to the one after which every row has met a stop token."""
    stops = pipeline.manifest.stop_token_ids
    ended: set[int] = set()
    for tokens in steps:
        yield tokens
        ended |= {row for row, token in enumerate(tokens) if token in stops}
        if len(ended) == len(tokens):
            return


def _until_stop(pipeline: Pipeline, tokens: list[int]) -> tuple[list[int], str]:
    """A row's tokens up to its first stop token, and their text."""
    stream, text = TextStream(pipeline.prompt.tokenizer), []
    for count, token in enumerate(tokens, 1):
        if token in pipeline.manifest.stop_token_ids:
            return tokens[:count], "".join([*text, stream.flush()])
        text.append(stream.push(token))
    return tokens, "".join([*text, stream.flush()])
