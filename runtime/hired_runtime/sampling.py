"""Logits -> the next token: greedy, or drawn after temperature, top-k and top-p, in that order.

The same options and logits give the same tokens; between builds of numpy, a draw at the very edge of two tokens may
differ by the last bit of an exponential. Knows nothing about stopping, text or engines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import InputError
from hired_edge.finite import check_finite


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the largest logit (the lowest id of equals) and ignores the rest.
        top_k: draw among the k largest logits, and those equal to the k-th; 0 for all.
        top_p: draw among the fewest tokens whose probabilities sum to at least p; 1 for all.
        seed: of the random numbers.

    Raises:
        InputError: an option out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check(0 <= self.temperature < math.inf, "temperature", self.temperature, "a finite number, 0 or more", "0.7")
        _check(self.top_k >= 0, "top-k", self.top_k, "0 (off) or more", "40")
        _check(0 < self.top_p <= 1, "top-p", self.top_p, "a number above 0 and up to 1", "0.9")
        _check(self.seed >= 0, "seed", self.seed, "0 or more", "0")


class Sampler:
    """Chooses tokens for the rows of a batch, each with random numbers of its own.

    A row's tokens depend on the seed, its number and its logits, not on the rows beside it.

    Args:
        rows: B, the number of rows.
    """

    def __init__(self, options: SamplingOptions, rows: int = 1) -> None:
        self._options = options
        seeds = (np.random.SeedSequence(options.seed, spawn_key=(row,)) for row in range(rows))
        self._random = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """The next token of each row: (B, V) float32 -> (B,) int64.

        Raises:
            NumericalError: a logit is not a finite number.
        """
        assert logits.ndim == 2
        assert len(logits) == len(self._random)
        check_finite(logits, "logits of the language engine")
        if self._options.temperature == 0:
            return logits.argmax(axis=1).astype(np.int64)
        drawn = [self._draw(row, random) for row, random in zip(logits, self._random, strict=True)]
        return np.array(drawn, dtype=np.int64)

    def _draw(self, logits: NDArray[np.float32], random: np.random.Generator) -> int:
        cumulative = np.cumsum(probabilities(logits, self._options))
        # Scaled by the last sum, which rounding keeps from being 1; a token of probability 0 is never the first above.
        return int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))


def probabilities(logits: NDArray[np.float32], options: SamplingOptions) -> NDArray[np.float64]:
    """The distribution that a token is drawn from: (V,) float32 -> (V,) float64, for a temperature above 0.

    As transformers' TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper have it, in that order. Of tokens
    with equal logits at top-p's edge, the lower ids are kept.
    """
    assert options.temperature > 0
    shifted = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore"):  # at a temperature near 0 all but the largest become -inf, as they should
        scores = shifted / options.temperature
    kept = np.arange(len(scores))
    if 0 < options.top_k < len(scores):
        kept = np.flatnonzero(scores >= np.partition(scores, -options.top_k)[-options.top_k])
    if options.top_p < 1:
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        sums = np.cumsum(_softmax(scores[kept]))
        kept = kept[: 1 + np.count_nonzero(sums[:-1] < options.top_p)]
    result = np.zeros(len(scores))
    result[kept] = _softmax(scores[kept])
    return result


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def _check(valid: bool, name: str, value: float, expected: str, example: str) -> None:
    if not valid:
        raise InputError(f"{name} {value}", expected=expected, fix=f"pass --{name} {example} or leave it out")
