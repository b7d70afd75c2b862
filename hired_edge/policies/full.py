"""No selection: the stock sequence of `transformers`, newlines included, whatever the budget."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from numpy.typing import NDArray

from hired_edge.policies.policy import Mask, Policy
from hired_edge.tiling import Tiling


def prepare(
    tiling: Tiling, allocation_attention: NDArray, selection_attention: NDArray, alpha: Fraction
) -> Callable[[int], Mask]:
    """See `Prepare`."""
    return lambda tokens: tiling.eligible


FULL = Policy("full", prepare, strict=False, stock=True, uses_alpha=False)
