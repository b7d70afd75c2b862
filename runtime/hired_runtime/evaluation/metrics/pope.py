"""POPE, the test for objects that are not there: "Is there a dog in the image?", to be answered by yes or no.

Li et al., Evaluating Object Hallucination in Large Vision-Language Models, 2023, arXiv:2305.10355, section 5; the
evaluator is its `evaluate.py` (github.com/AoiDragon/POPE). The paper leaves open how a sentence is taken for yes or no;
the evaluator takes whatever has no word of denial for yes, an empty answer too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DENIALS = frozenset({"No", "not", "no"})
"""As they are written: the evaluator does not take "NO" or "isn't" for one."""

LABELS = ("yes", "no")


def says_yes(answer: str) -> bool:
    """Whether the first sentence, cut at the first full stop, has no word of denial; words end at spaces alone."""
    return DENIALS.isdisjoint(answer.strip().split(".")[0].replace(",", "").split(" "))


def refusal(accepted: Sequence[str]) -> str | None:
    """Why this is no question of yes or no. The evaluator would take any other label for yes."""
    labels = set(map(_label, accepted))
    return None if len(labels) == 1 and labels <= set(LABELS) else "accepted answers other than yes alone or no alone"


def score(answer: str, accepted: Sequence[str]) -> float:
    """1 if yes or no is right, else 0; the mean is POPE's accuracy."""
    return float(says_yes(answer) == (_label(accepted[0]) == "yes"))


def counts(answer: str, accepted: Sequence[str]) -> tuple[float, float, float, float]:
    """One question as (true positive, false positive, true negative, false negative); positive is yes."""
    said, right = says_yes(answer), _label(accepted[0]) == "yes"
    return float(said and right), float(said and not right), float(not said and not right), float(not said and right)


def figures(sums: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
    """Precision, recall, F1 and the ratio of yes, from sums (..., 4) of `counts`.

    NaN where undefined, such as the precision of a model that never says yes; the evaluator stops there with an error.
    F1 is written so that it needs neither precision nor recall, and is their harmonic mean wherever that is defined.
    """
    true_yes, false_yes, true_no, false_no = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    said = true_yes + false_yes
    return {
        "precision": _ratio(true_yes, said),
        "recall": _ratio(true_yes, true_yes + false_no),
        "f1": _ratio(2 * true_yes, 2 * true_yes + false_yes + false_no),
        "yes_ratio": _ratio(said, said + true_no + false_no),
    }


def _label(text: str) -> str:
    return text.strip().lower()


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
