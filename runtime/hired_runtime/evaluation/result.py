"""What an evaluation found: scores of every question at every setting; accuracies and paired differences from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import InputError
from hired_edge.questions import BadRow, Question
from hired_runtime.evaluation.intervals import RESAMPLES, Estimate, interval, resampled_means
from hired_runtime.evaluation.metrics import check_scorable, metric_named
from hired_runtime.evaluation.settings import STOCK, Key, Setting

REFERENCE_POLICY = "hired"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Answers to the good rows of a data set, and what they are worth.

    Args:
        settings: as asked for, in order.
        questions: the good rows, in order, Q.
        bad_rows: the others, by line.
        texts: the answers of every setting's key, Q each.
        visual_tokens: of every setting's key, the visual positions that each question's picture took, Q each.
        positions: of every budget as given, the visual positions that it is for the largest picture.
        metric: a name in `METRICS`.
        facts: about the run, for the report.
        resamples, seed: of the bootstrap.
    """

    settings: Sequence[Setting]
    questions: Sequence[Question]
    bad_rows: Sequence[BadRow]
    texts: Mapping[Key, Sequence[str]]
    visual_tokens: Mapping[Key, Sequence[int]]
    positions: Mapping[str, int]
    metric: str = "exact"
    facts: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = RESAMPLES
    seed: int = 0
    _column: dict[Key, int] = field(init=False, repr=False)
    _scores: NDArray[np.float64] = field(init=False, repr=False)
    _groups: NDArray[np.int64] = field(init=False, repr=False)
    _resampled: dict[str | None, NDArray[np.float64]] = field(default_factory=dict, init=False, repr=False)
    _summaries: dict[tuple[Key, str | None], dict[str, Estimate | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        check_scorable(self.metric, self.questions)
        metric = metric_named(self.metric)
        keys = list(self.texts)
        columns = [
            [metric(text, question.answers) for question, text in zip(self.questions, self.texts[key], strict=True)]
            for key in keys
        ]
        pictures = {picture: i for i, picture in enumerate(dict.fromkeys(each.picture for each in self.questions))}
        object.__setattr__(self, "_column", {key: i for i, key in enumerate(keys)})
        object.__setattr__(self, "_scores", np.array(columns, np.float64).T)
        object.__setattr__(self, "_groups", np.array([pictures[each.picture] for each in self.questions]))

    @property
    def tasks(self) -> list[str]:
        """In the order of their first questions."""
        return list(dict.fromkeys(question.task for question in self.questions))

    def answers(self, setting: Setting) -> Sequence[str]:
        """The texts of a setting, one a question, in order."""
        return self.texts[self._known(setting)]

    def scores(self, setting: Setting, task: str | None = None) -> NDArray[np.float64]:
        """The scores of a setting, one a question of the task (None: of all tasks), in order."""
        return self._scores[self._of(task), self._column[self._known(setting)]]

    def accuracy(self, setting: Setting, task: str | None = None) -> Estimate:
        """Mean score over the questions of a task, or of all, with its 95 % interval over pictures.

        Raises:
            InputError: the setting was not evaluated, or there is no such task.
        """
        column = self._column[self._known(setting)]
        scores = self.scores(setting, task)
        return Estimate(float(scores.mean()), *interval(self._means(task)[:, column]), len(scores))

    def difference(self, setting: Setting, against: Setting, task: str | None = None) -> Estimate:
        """Mean of `setting`'s score less `against`'s, question by question: a paired difference.

        Raises:
            InputError: as `accuracy`.
        """
        one, other = self._column[self._known(setting)], self._column[self._known(against)]
        scores = self.scores(setting, task) - self.scores(against, task)
        means = self._means(task)
        return Estimate(float(scores.mean()), *interval(means[:, one] - means[:, other]), len(scores))

    def summary(self, setting: Setting, task: str | None = None) -> dict[str, Estimate | None]:
        """The metric's figures of a whole set, by name, such as F1; none for a metric whose mean says it all.

        Their 95 % intervals are over pictures, by the draws that `accuracy` takes. None where the answers leave a
        figure undefined.

        Raises:
            InputError: as `accuracy`.
        """
        summary, key = metric_named(self.metric).summary, self._known(setting)
        if summary is None:
            return {}
        if (key, task) not in self._summaries:
            chosen = self._of(task)
            asked = [(self.texts[key][int(i)], self.questions[int(i)].answers) for i in chosen]
            counts = np.array([summary.counts(text, accepted) for text, accepted in asked])
            resampled = resampled_means(counts, self._groups[chosen], self.resamples, self.seed)
            self._summaries[key, task] = summary.estimates(counts, resampled)
        return self._summaries[key, task]

    def tokens_used(self, setting: Setting, task: str | None = None) -> NDArray[np.int64]:
        """Visual positions that each question's picture took, one a question of the task (None: of all), in order."""
        return np.array(self.visual_tokens[self._known(setting)], np.int64)[self._of(task)]

    def rows(self, tasks: Sequence[str | None] | None = None) -> list[dict[str, Any]]:
        """A row for each setting and task: {policy, budget, task, n, accuracy, low, high, alpha, newlines, partitions,
        positions, visual_tokens: {mean, least, most}}.

        `tasks`: None for all one by one; a task of None for all of them together. A metric with figures of a whole set
        adds `summary`: {name: {value, low, high}, or null where undefined}.
        """
        rows = []
        for task in self.tasks if tasks is None else tasks:
            for setting in self.settings:
                found = self.accuracy(setting, task)
                named = {"policy": setting.policy, "budget": setting.budget, "task": task, "n": found.n}
                used = self.tokens_used(setting, task)
                shown = {
                    "accuracy": found.value,
                    "low": found.low,
                    "high": found.high,
                    **_named(setting),
                    "visual_tokens": {"mean": float(used.mean()), "least": int(used.min()), "most": int(used.max())},
                }
                figures = {
                    name: None if each is None else {"value": each.value, "low": each.low, "high": each.high}
                    for name, each in self.summary(setting, task).items()
                }
                rows.append({**named, **shown, **({"summary": figures} if figures else {})})
        return rows

    def differences(self, tasks: Sequence[str | None] | None = None) -> list[dict[str, Any]]:
        """Every setting against `hired` as the paper has it at the same budget, and against the stock sequence.

        A policy that uses alpha is compared with `hired` of the same alpha, `hired` of another alpha with that of 0.5.
        """
        rows = []
        for task in self.tasks if tasks is None else tasks:
            for setting, against in self._pairs():
                found = self.difference(setting, against, task)
                rows.append(
                    {
                        **_named(setting),
                        "task": task,
                        "against": _named(against),
                        "n": found.n,
                        "difference": found.value,
                        "low": found.low,
                        "high": found.high,
                    }
                )
        return rows

    def _pairs(self) -> Iterator[tuple[Setting, Setting]]:
        for setting in self.settings:
            for against in self._references(setting):
                if setting.key != against.key:
                    yield setting, against
            stock = Setting(STOCK.policy, STOCK.budget, partitions=setting.partitions)
            if stock.key in self.texts and setting.key != stock.key:
                yield setting, stock

    def _references(self, setting: Setting) -> list[Setting]:
        """`hired` of the setting's budget: as the paper has it, or else numbered and with newlines as the setting."""

        def style(each: Setting) -> tuple[str | None, str]:
            return each.newlines, each.key.positions

        found = [
            each
            for each in self.settings
            if each.policy == REFERENCE_POLICY
            and (each.parsed_budget, each.partitions) == (setting.parsed_budget, setting.partitions)
        ]
        paper = (None, "compact")
        found = [each for each in found if style(each) == paper] or [e for e in found if style(e) == style(setting)]
        own = setting.policy == REFERENCE_POLICY and style(setting) == paper
        alphas = (0.5,) if own else (setting.shown_alpha,)
        return [each for each in found if setting.shown_alpha is None or each.shown_alpha in alphas]

    def _known(self, setting: Setting) -> Key:
        if setting.key not in self.texts:
            evaluated = ", ".join(f"{each.name} at {each.budget}" for each in self.settings)
            raise InputError(
                f"{setting.name} at {setting.budget} was not evaluated", expected=evaluated, fix="ask for one of them"
            )
        return setting.key

    def _of(self, task: str | None) -> NDArray[np.int64]:
        """Which questions are of a task."""
        if task is None:
            return np.arange(len(self.questions))
        chosen = np.array([i for i, question in enumerate(self.questions) if question.task == task], np.int64)
        if not len(chosen):
            known = ", ".join(self.tasks)
            raise InputError(f"no question of task {task!r}", expected=known, fix="ask for another task")
        return chosen

    def _means(self, task: str | None) -> NDArray[np.float64]:
        """Resampled means of every key, (R, K), made once for each task."""
        if task not in self._resampled:
            chosen = self._of(task)
            self._resampled[task] = resampled_means(
                self._scores[chosen], self._groups[chosen], self.resamples, self.seed
            )
        return self._resampled[task]


def _named(setting: Setting) -> dict[str, Any]:
    return {
        "policy": setting.policy,
        "budget": setting.budget,
        "alpha": setting.shown_alpha,
        "newlines": setting.newlines,
        "partitions": setting.partitions,
        "positions": setting.key.positions,
    }
