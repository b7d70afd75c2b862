"""No selection: the stock sequence of `transformers`, newlines included, whatever the budget."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from hired_edge.policies.policy import Mask, Policy, View


def prepare(view: View, alpha: Fraction) -> Callable[[int], Mask]:
    """See `Prepare`."""
    return lambda tokens: view.tiling.eligible


FULL = Policy("full", prepare, strict=False, stock=True, uses_alpha=False)
