"""What a selection policy is, and the ranking that most of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hired_edge.tiling import Tiling

Mask = NDArray[np.bool_]


class Prepare(Protocol):
    """Do once what does not depend on the number of tokens; return the kept mask (T, N) for any number n.

    Args:
        tiling: the picture, cut.
        allocation_attention: CLS attention of the allocation layer, summed over heads, (T, N).
        selection_attention: the same of the selection layer, (T, N).
        alpha: the base picture's share of the budget, 0 to 1.
    """

    def __call__(
        self, tiling: Tiling, allocation_attention: NDArray, selection_attention: NDArray, alpha: Fraction
    ) -> Callable[[int], Mask]: ...


@dataclass(frozen=True)
class Policy:
    """A way to choose n tokens.

    Args:
        name: what the user calls it.
        prepare: see `Prepare`. The mask it leads to never holds a padding patch.
        strict: whether the mask for n holds exactly min(n, eligible) patches. If not, it holds at most n.
        newlines: the newline policy unless the user asks for another; None for the family's own.
        stock: whether it stands for the whole stock sequence, whatever the budget.
        uses_alpha: whether alpha makes a difference.
    """

    name: str
    prepare: Prepare
    strict: bool = True
    newlines: str | None = None
    stock: bool = False
    uses_alpha: bool = True


def ranks(scores: NDArray) -> NDArray[np.int64]:
    """Place of each patch in its partition by falling score, (T, N), from 0; ties to the lower raster index."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty(scores.shape, dtype=np.int64)
    np.put_along_axis(places, order, np.arange(scores.shape[1])[None], axis=1)
    return places
