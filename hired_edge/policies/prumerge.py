"""PruMerge and PruMerge+ (arXiv 2403.15388): the patches that attention singles out, each merged with its likes.

Tile by tile: kept are the patches whose CLS attention is an outlier (above the third quartile by more than 1.5 times
the distance between the quartiles); "+" adds patches at even steps, a third as far apart as the kept ones are rare.
Each kept one then gains, weighted by their attention, the 32 patches of its tile with the most similar keys. How many
are kept is the picture's doing: a smaller budget is refused, a larger one not used up.

What differs from the public code (read through HiRED's port of it to LLaVA-NeXT): keys and attention are those of the
selection layer with its heads summed, not of the last layer as one head; attention is then divided by its sum over the
tile, so that it weighs as much as one head's does; features are merged behind the projector; kept tokens stand in
raster order, with newlines, not in the order of attention; padding takes no part; and the one token more that sums up
the rest of a tile is left out. A tile without an outlier keeps its most attended patch.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import NoSelectionError
from hired_edge.policies.policy import Mask, Merge, Policy, View, joined
from hired_edge.policies.similarity import unit_rows

NEIGHBOURS = 32


def outliers(attention: NDArray) -> NDArray[np.bool_]:
    """Which of a tile's patches (n,) stand out: at least the most attended one."""
    attention = attention.astype(np.float64)  # in whose quartiles no bit is rounded away, whatever numpy's version
    first, third = np.percentile(attention, [25, 75])
    found = attention > third + 1.5 * (third - first)
    found[np.argmax(attention)] = True
    return found


def _of_tile(attention: NDArray, eligible: NDArray[np.bool_], plus: bool) -> NDArray[np.bool_]:
    """The mask of one tile, (N,)."""
    kept = np.zeros(len(eligible), np.bool_)
    if eligible.any():
        kept[eligible] = outliers(attention[eligible])
        if plus:
            apart = int(eligible.sum()) // int(kept.sum())
            kept[: len(kept) - 1 : max(1, apart // 3)] = True
            kept &= eligible
    return kept


def prepare(view: View, alpha: Fraction, plus: bool = False) -> Callable[[int], Mask]:
    """See `Prepare`.

    Raises (from what it returns):
        NoSelectionError: fewer tokens than the policy keeps of this picture.
    """
    parts = zip(view.selection_attention, view.tiling.eligible, strict=True)
    mask = np.stack([_of_tile(attention, eligible, plus) for attention, eligible in parts])
    count = int(mask.sum())

    def keep(tokens: int) -> Mask:
        if tokens < count:
            raise NoSelectionError(
                f"a policy that keeps {count} tokens of this picture",
                expected="a budget with room for them and their newlines",
                fix="raise --visual-tokens, or pass a policy that keeps to a budget",
            )
        return mask

    return keep


def merge(view: View, mask: Mask) -> Merge:
    """x_i + sum over its neighbours j of a_j x_j, where a_j is j's share of the tile's attention."""
    assert view.keys is not None  # by Policy.needs
    parts: list[Merge] = []
    for tile, (kept, keys) in enumerate(zip(mask, view.keys, strict=True)):
        chosen, patches = np.flatnonzero(kept), np.flatnonzero(view.tiling.eligible[tile])
        rows = unit_rows(keys)
        likeness = rows[chosen] @ rows[patches].T
        likeness[chosen[:, None] == patches] = -np.inf  # nobody is its own neighbour
        count = min(NEIGHBOURS, len(patches) - 1)
        near = patches[np.argpartition(-likeness, max(count - 1, 0), axis=1)[:, :count]]  # in no order: they are summed
        first = tile * mask.shape[1]
        attention = view.selection_attention[tile].astype(np.float32)
        attention = attention / max(float(attention.sum()), 1e-12)
        parts.append(Merge(first + chosen, first + chosen, np.ones(len(chosen), np.float32)))
        near = near.reshape(-1)
        parts.append(Merge(first + np.repeat(chosen, count), first + near, attention[near]))
    return joined(parts)


_NEEDS = frozenset({"keys"})
PRUMERGE = Policy("prumerge", prepare, strict=False, uses_alpha=False, needs=_NEEDS, merge=merge)
PRUMERGE_PLUS = Policy(
    "prumerge+", partial(prepare, plus=True), strict=False, uses_alpha=False, needs=_NEEDS, merge=merge
)
