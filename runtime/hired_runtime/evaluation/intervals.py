"""Percentile bootstrap over pictures: how far an accuracy, or a difference of two, may be off.

Questions about one picture are answered alike, so pictures are drawn, with all their questions (a cluster bootstrap;
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). Every column of scores is resampled
with the same draws, so a difference of two columns is paired. Where all scores are equal the interval is a point:
resampling cannot see what no picture of the data set shows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000
_CHUNK = 2**22  # draws held at once


class Estimate(NamedTuple):
    """A mean of scores, or a difference of two, with its 95 % interval and the number of questions."""

    value: float
    low: float
    high: float
    n: int


def resampled_means(
    scores: NDArray[np.float64], groups: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Means of each column over pictures drawn with replacement: (R, K).

    Args:
        scores: (Q, K), a row a question.
        groups: (Q,), any number that names a question's picture.
        resamples: R.
        seed: of the draws.
    """
    _, group = np.unique(groups, return_inverse=True)
    pictures = int(group.max()) + 1
    counts = np.bincount(group, minlength=pictures).astype(np.float64)
    sums = np.stack([np.bincount(group, column, pictures) for column in scores.T], axis=1)
    random = np.random.Generator(np.random.PCG64(seed))
    means = []
    step = max(1, _CHUNK // pictures)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.integers(0, pictures, (rows, pictures)) + pictures * np.arange(rows)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=rows * pictures).reshape(rows, pictures)
        means.append((times @ sums) / (times @ counts)[:, None])
    return np.concatenate(means)


def interval(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """The central 95 % of resampled values (R,)."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
