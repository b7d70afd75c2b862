"""How far a bundle's next-token distributions are from fp32's: each is given fp32's own answers, token by token.

So a difference does not grow along an answer, and every token is compared. Logits are those of the bundle as it ships:
where its weights are quantised for the CPU, activations are rounded to int8 as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import hired_runtime
from hired_edge.budget import parse_budget
from hired_edge.questions import Question
from hired_runtime.evaluation.intervals import Estimate, interval, resampled_means
from hired_runtime.pipeline import Pipeline, Timings
from hired_runtime.prompt import question as messages
from hired_runtime.sampling import SamplingOptions

BUDGETS = ("100%", "20%")
POLICY, ALPHA = "hired", 0.5
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Forced:
    """One question at one budget.

    Args:
        question, budget: which.
        tokens: fp32's answer, its stop token included.
        logits: (tokens, V), before each of them.
    """

    question: Question
    budget: str
    tokens: list[int]
    logits: Floats


@dataclass(frozen=True)
class Divergence:
    """From fp32 at one budget.

    Args:
        kl: Kullback-Leibler divergence from fp32's distribution, in nats, mean over tokens, with its 95 % interval over
            pictures.
        median: of the same.
        first: share of questions with fp32's first token.
    """

    kl: Estimate
    median: float
    first: float


def answers(bundle: Path, questions: list[Question], on_question: Callable[[int], None]) -> list[Forced]:
    """The reference: the bundle's own greedy answers."""
    return _run(bundle, questions, lambda question, budget: None, on_question)


def forced(bundle: Path, reference: list[Forced], on_question: Callable[[int], None]) -> list[Forced]:
    """The same questions with the reference's tokens as the answers so far."""
    known = {(each.question.line, each.budget): each.tokens for each in reference}
    questions = list({each.question.line: each.question for each in reference}.values())
    return _run(bundle, questions, lambda question, budget: known[question.line, budget], on_question)


def divergences(reference: list[Forced], got: list[Forced]) -> dict[str, Divergence]:
    """By budget."""
    found = {}
    for budget in BUDGETS:
        pairs = [pair for pair in zip(reference, got, strict=True) if pair[0].budget == budget]
        each = [_kl(theirs.logits, ours.logits) for theirs, ours in pairs]
        pictures = {picture: i for i, picture in enumerate(dict.fromkeys(one.question.picture for one, _ in pairs))}
        groups = np.concatenate(
            [np.full(len(kl), pictures[one.question.picture]) for kl, (one, _) in zip(each, pairs, strict=True)]
        )
        kl = np.concatenate(each)
        means = resampled_means(kl[:, None], groups)[:, 0]
        first = np.mean([one.logits[0].argmax() == other.logits[0].argmax() for one, other in pairs])
        found[budget] = Divergence(
            Estimate(float(kl.mean()), *interval(means), len(kl)), float(np.median(kl)), float(first)
        )
    return found


def _kl(reference: Floats, got: Floats) -> NDArray[np.float64]:
    """Of each row, in nats."""
    p, q = (_log_softmax(logits.astype(np.float64)) for logits in (reference, got))
    return np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _run(
    bundle: Path,
    questions: list[Question],
    given: Callable[[Question, str], list[int] | None],
    on_question: Callable[[int], None],
) -> list[Forced]:
    model = hired_runtime.open(bundle, visual_tokens=BUDGETS[0])
    pipeline = model.pipeline
    largest, made = parse_budget(BUDGETS[0]), []
    for picture in dict.fromkeys(question.picture for question in questions):
        seen = pipeline.see([picture], largest, None, Timings())
        for question in (each for each in questions if each.picture == picture):
            prompt = pipeline.prompt.render(messages(question.prompt), pictures=1)
            for budget in BUDGETS:
                selection = seen.select(parse_budget(budget), POLICY, ALPHA, None)
                row, tokens = pipeline.splice(prompt, selection, seen.gather), given(question, budget)
                if tokens is None:
                    tokens = _greedy(pipeline, row)
                made.append(Forced(question, budget, tokens, _logits(pipeline, row, tokens)))
            on_question(1)
    return made


def _greedy(pipeline: Pipeline, row: Floats) -> list[int]:
    tokens = []
    for (token,) in pipeline.decode([row], SamplingOptions(), pipeline.limits.new_tokens, Timings()):
        tokens.append(token)
        if token in pipeline.manifest.stop_token_ids:
            break
    return tokens


def _logits(pipeline: Pipeline, row: Floats, tokens: list[int]) -> Floats:
    """(tokens, V): before each of them, all the earlier ones being given."""
    language, zero = pipeline.backend.language, np.zeros(1, np.int64)
    found = [language.step(row[None], zero, zero + len(row) - 1).copy()]
    for count, token in enumerate(tokens[:-1]):
        embedded = pipeline.embedding.rows(np.array([token]))
        found.append(language.step(embedded[None], zero + len(row) + count, zero).copy())
    return np.concatenate(found)
