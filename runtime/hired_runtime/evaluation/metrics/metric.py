"""What a metric is: a score of one answer, and for some metrics figures of a whole set that are no mean of scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hired_runtime.evaluation.intervals import Estimate, interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Figures of a set, such as F1: ratios of what is counted question by question.

    Args:
        counts: (what the model answered, what is accepted) -> C numbers of the one question.
        figures: sums or means of the counts (..., C) -> the figures by name, (...) each. Ratios, so that sums and
            means give the same; NaN where undefined.
    """

    counts: Callable[[str, Sequence[str]], Sequence[float]]
    figures: Callable[[Floats], Mapping[str, Floats]]

    def estimates(self, counts: Floats, resampled: Floats) -> dict[str, Estimate | None]:
        """Every figure with its 95 % interval, or None where the set leaves it undefined.

        Resamples that leave a figure undefined (no picture drawn that counts for it) say nothing about it and are left
        out of its interval.

        Args:
            counts: (Q, C).
            resampled: means of the counts over resampled pictures, (R, C).
        """
        values, spreads = self.figures(counts.mean(axis=0)), self.figures(resampled)
        found: dict[str, Estimate | None] = {}
        for name, value in values.items():
            defined = spreads[name][~np.isnan(spreads[name])]
            known = not np.isnan(value) and len(defined)
            found[name] = Estimate(float(value), *interval(defined), len(counts)) if known else None
        return found


@dataclass(frozen=True)
class Metric:
    """How answers are scored.

    Args:
        score: (what the model answered, what is accepted) -> 0 to 1. The report takes means.
        summary: figures of the whole set beside the mean; None = the mean says it all.
        refusal: what is accepted -> why this metric cannot score such a question; None = it can.
    """

    score: Callable[[str, Sequence[str]], float]
    summary: Summary | None = None
    refusal: Callable[[Sequence[str]], str | None] = lambda accepted: None

    def __call__(self, answer: str, accepted: Sequence[str]) -> float:
        return self.score(answer, accepted)
