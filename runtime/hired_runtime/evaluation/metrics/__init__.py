"""How answers are scored against the accepted ones: a metric is a small file here and a line in `METRICS`.

Each file cites the paper and the evaluator that define its metric. Where the two differ the evaluator is followed, for
published figures come from it, and the file says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from hired_edge.errors import InputError
from hired_edge.questions import Question
from hired_runtime.evaluation.metrics import pope, vqa
from hired_runtime.evaluation.metrics.anls import anls
from hired_runtime.evaluation.metrics.exact import exact
from hired_runtime.evaluation.metrics.metric import Metric, Summary
from hired_runtime.evaluation.metrics.relaxed import relaxed

__all__ = ["METRICS", "Metric", "Summary", "check_scorable", "metric_named"]

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "exact": Metric(exact),
        "anls": Metric(anls),
        "vqa": Metric(vqa.score, refusal=vqa.refusal),
        "relaxed": Metric(relaxed),
        "pope": Metric(pope.score, Summary(pope.counts, pope.figures), pope.refusal),
    }
)


def metric_named(name: str) -> Metric:
    """A metric by its name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in METRICS:
        raise InputError(f"metric {name!r}", expected=", ".join(METRICS), fix="pass another --metric")
    return METRICS[name]


def check_scorable(name: str, questions: Iterable[Question]) -> None:
    """Checks that a metric can score every question.

    Raises:
        InputError: there is no such metric, or a question is not of its kind; the first one is named.
    """
    metric = metric_named(name)
    for question in questions:
        reason = metric.refusal(question.answers)
        if reason is not None:
            raise InputError(
                f"the question of line {question.line} has {reason}",
                expected=f"a question that metric {name!r} can score",
                fix="pass another --metric, or mend the data set",
            )
