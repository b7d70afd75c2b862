"""Questions about one picture at several settings: seen once, then answered a batch of rows at a time, greedily.

A batch holds rows of similar length, whatever their settings, so that little of a prefill is padding. Rows do not see
each other, but shapes are not those of a request alone: a row's tokens are the same as alone, or first diverge at a
near-tie of the logits. Knows nothing of scores, files or data sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hired_edge.budget import Budget
from hired_edge.selection import Selection
from hired_runtime.evaluation.settings import Key
from hired_runtime.pictures import PictureSource
from hired_runtime.pipeline import Pipeline, Timings
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
    """A job's answer: generated token ids, a stop token included, and their text."""

    job: Job
    tokens: list[int]
    text: str


def answer(
    pipeline: Pipeline,
    picture: PictureSource,
    jobs: Sequence[Job],
    largest: Budget,
    newlines: str | None,
    *,
    new_tokens: int,
    batch: int,
) -> list[RowAnswer]:
    """Answers every job about one picture; the vision tower runs once.

    Args:
        largest: no job has a larger budget.
        newlines: newline policy; None = each policy's or the family's own.
        new_tokens: at most, for each answer.
        batch: rows at once, at most what the bundle was opened with.

    Raises:
        InputError: the picture cannot be read.
        LimitError: newline policy "all-rows" with a budget below the picture's rows, or a limit of the opening.
        BundleError: the engine fails.
    """
    with pipeline.turns.lock:
        pipeline.turns.take(None)
        seen = pipeline.see([picture], largest, newlines, Timings())
        selections: dict[Key, list[Selection]] = {}
        for key in dict.fromkeys(job.key for job in jobs):
            budget, alpha = key.parsed_budget, key.alpha or 0.5
            selections[key] = seen.select(budget, key.policy, alpha, newlines)
        answers: dict[Job, RowAnswer] = {}
        for rows in _batches(jobs, selections, batch):
            embeds = [pipeline.splice(job.prompt, selections[job.key]) for job in rows]
            steps = pipeline.decode(embeds, SamplingOptions(), new_tokens, Timings())
            try:
                tokens = list(_until_all_stop(pipeline, steps))
            except BaseException:
                pipeline.backend.language.reset()  # as after any request that ended in error
                raise
            answers.update((job, _row_answer(pipeline, job, own)) for job, *own in zip(rows, *tokens, strict=True))
    return [answers[job] for job in jobs]


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


def _row_answer(pipeline: Pipeline, job: Job, tokens: list[int]) -> RowAnswer:
    """Cuts a row's tokens behind its first stop token."""
    stream, text = TextStream(pipeline.prompt.tokenizer), []
    for count, token in enumerate(tokens, 1):
        if token in pipeline.manifest.stop_token_ids:
            return RowAnswer(job, tokens[:count], "".join([*text, stream.flush()]))
        text.append(stream.push(token))
    return RowAnswer(job, tokens, "".join([*text, stream.flush()]))
