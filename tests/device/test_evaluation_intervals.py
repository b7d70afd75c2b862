"""The bootstrap against what it must come to: exact distributions, theory, and coverage on made-up questions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hired_runtime.evaluation import intervals
from hired_runtime.evaluation.intervals import interval, resampled_means


def answered(datasets: int, pictures: int, questions: int, seed: int, spread: float) -> tuple[NDArray, NDArray]:
    """Right (1) or wrong (0), (pictures * questions, datasets), and each row's picture.

    A picture's questions share its difficulty, Beta(a, b) with mean 0.7: true accuracy is 0.7.
    """
    random = np.random.default_rng(seed)
    rates = random.beta(0.7 * spread, 0.3 * spread, (pictures, 1, datasets))
    right = random.random((pictures, questions, datasets)) < rates
    return right.reshape(-1, datasets).astype(float), np.repeat(np.arange(pictures), questions)


def covered(scores: NDArray, groups: NDArray, truth: float, resamples: int) -> float:
    """The share of data sets (columns) whose interval holds the truth."""
    means = resampled_means(scores, groups, resamples)
    bounds = [interval(column) for column in means.T]
    return sum(low <= truth <= high for low, high in bounds) / len(bounds)


@pytest.mark.parametrize("spread", [2.0, 1000.0])  # pictures of very different difficulty, and of the same
def test_95_percent_intervals_cover_95_percent(spread: float) -> None:
    scores, groups = answered(400, 80, 5, seed=1, spread=spread)
    # 400 draws of 0.95 have a standard deviation of 0.011; percentile intervals of 80 clusters cover a little less.
    assert 0.91 <= covered(scores, groups, 0.7, resamples=500) <= 0.98


def test_questions_are_not_taken_for_independent() -> None:
    """As if each question were its own picture: too narrow wherever pictures differ."""
    scores, groups = answered(400, 80, 5, seed=1, spread=2.0)
    assert covered(scores, np.arange(len(groups)), 0.7, resamples=500) < 0.85


def test_paired_differences_cover_and_are_narrow() -> None:
    one, groups = answered(400, 80, 5, seed=2, spread=2.0)
    worse = one * (np.random.default_rng(3).random(one.shape) < 0.9)  # a tenth of the right answers is lost
    means = resampled_means(np.concatenate([one, worse], axis=1), groups, 500)
    paired = [interval(means[:, i] - means[:, 400 + i]) for i in range(400)]
    assert 0.91 <= sum(low <= 0.07 <= high for low, high in paired) / 400 <= 0.98
    alone = [interval(means[:, i]) for i in range(400)]
    assert np.diff(paired).mean() < 0.5 * np.diff(alone).mean()


def test_the_spread_is_that_of_theory() -> None:
    """Equal clusters: the variance of a resampled mean is that of the pictures' means, by n."""
    scores, groups = answered(1, 50, 4, seed=4, spread=2.0)
    resampled = resampled_means(scores, groups, 20_000)[:, 0]
    pictures = scores.reshape(50, 4).mean(axis=1)
    assert resampled.mean() == pytest.approx(pictures.mean(), abs=0.002)
    assert resampled.std() == pytest.approx(pictures.std() / 50**0.5, rel=0.03)


def test_two_pictures_of_unequal_size() -> None:
    """All four draws by hand: {a a}, {a b}, {b a}, {b b}, of pictures with 1 right of 1 and 0 right of 3."""
    resampled = resampled_means(np.array([[1.0], [0.0], [0.0], [0.0]]), np.array([7, 3, 3, 3]), 40_000)[:, 0]
    values, counts = np.unique(resampled, return_counts=True)
    assert values.tolist() == [0, 0.25, 1]
    assert (counts / 40_000).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_the_same_seed_gives_the_same_interval_however_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, groups = answered(3, 20, 2, seed=5, spread=2.0)
    whole = resampled_means(scores, groups, 300, seed=9)
    assert (resampled_means(scores, groups, 300, seed=9) == whole).all()
    assert (resampled_means(scores, groups, 300, seed=8) != whole).any()
    monkeypatch.setattr(intervals, "_CHUNK", 130)
    assert (resampled_means(scores, groups, 300, seed=9) == whole).all()


def test_equal_scores_are_a_point() -> None:
    scores = np.ones((12, 1))
    assert interval(resampled_means(scores, np.arange(12) // 3, 100)[:, 0]) == (1, 1)
