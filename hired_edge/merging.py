"""Kept tokens that stand for several patches: their features, as a policy's `Merge` weighs them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hired_edge.policies.policy import Merge


def merge_rows(
    visual: NDArray[np.float32],
    gather: NDArray[np.int64],
    merge: Merge,
    fetch: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> None:
    """Overwrites the rows of `visual` that are targets, in place.

    Args:
        visual: features in splice order, (K, D).
        gather: their flat patches, (K,); -1 for a newline.
        merge: what each target is the sum of.
        fetch: features of flat patches (n,), (n, D).
    """
    if not len(merge.target):  # of an empty mask
        return
    row_of = np.full(1 + max(int(gather.max()), int(merge.target.max())), -1, np.int64)
    row_of[gather[gather >= 0]] = np.flatnonzero(gather >= 0)
    rows = row_of[merge.target]
    assert (rows >= 0).all(), "a merge into a patch that is not kept"
    order = np.argsort(rows, kind="stable")
    rows, sources, weights = rows[order], merge.source[order], merge.weight[order]
    targets, starts = np.unique(rows, return_index=True)
    # So many targets at once that their weights are a small dense matrix: more where their sources overlap more.
    at_once = min(max(4 * len(rows) // max(len(targets), 1), 32), 256)
    for first in range(0, len(targets), at_once):
        some = targets[first : first + at_once]
        part = slice(starts[first], starts[first + at_once] if first + at_once < len(targets) else None)
        used, column = np.unique(sources[part], return_inverse=True)
        matrix = np.zeros((len(some), len(used)), np.float32)
        np.add.at(matrix, (np.searchsorted(some, rows[part]), column), weights[part])
        visual[some] = matrix @ fetch(used)
