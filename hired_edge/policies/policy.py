"""What a selection policy is, and the ranking that most of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hired_edge.finite import check_finite
from hired_edge.tiling import Tiling

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class View:
    """What a policy may look at: one picture, as the vision tower saw it.

    Args:
        tiling: the picture, cut into T tiles of N patches.
        allocation_attention: CLS attention of the allocation layer, summed over heads, float (T, N).
        selection_attention: the same of the selection layer, (T, N).
        features: fetches the projected features, (T, N, D) float32: a copy that only those pay for who call it.
        keys: the selection layer's keys, heads side by side, float (T, N, W), of a bundle exported `--with-keys`.
    """

    tiling: Tiling
    allocation_attention: NDArray
    selection_attention: NDArray
    features: Callable[[], NDArray] | None = None
    keys: NDArray | None = None

    def all_features(self) -> NDArray:
        """The projected features, (T, N, D)."""
        assert self.features is not None, "a policy that needs features was given none"
        features = self.features()
        check_finite(features, "features of the vision engine")
        return features


class Merge(NamedTuple):
    """Kept tokens that stand for more than their own patch: `target` becomes the sum of `weight` times `source`.

    A kept patch that is no target stays as it is. Patches are flat, p * N + j.

    Attributes:
        target: kept patches, int64 (M,); one may stand here many times.
        source: int64 (M,).
        weight: float32 (M,).
    """

    target: NDArray[np.int64]
    source: NDArray[np.int64]
    weight: NDArray[np.float32]


def joined(parts: Sequence[Merge]) -> Merge:
    """Several merges as one."""
    nothing = Merge(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    target, source, weight = zip(nothing, *parts, strict=True)
    return Merge(np.concatenate(target), np.concatenate(source), np.concatenate(weight))


class Prepare(Protocol):
    """Do once what does not depend on the number of tokens; return the kept mask (T, N) for any number n.

    Args:
        view: the picture.
        alpha: the base picture's share of the budget, 0 to 1.
    """

    def __call__(self, view: View, alpha: Fraction) -> Callable[[int], Mask]: ...


@dataclass(frozen=True)
class Policy:
    """A way to choose n tokens.

    Args:
        name: what the user calls it.
        prepare: see `Prepare`. The mask it leads to never holds a padding patch.
        strict: whether the mask for n holds exactly min(n, eligible) patches. If not, it holds at most n.
        newlines: the newline policy unless the user asks for another; None for the family's own.
        positions: how kept tokens are numbered unless the user asks for another way: "compact" as in the paper, or
            "original" (`hired_runtime.positions`).
        stock: whether it stands for the whole stock sequence, whatever the budget.
        uses_alpha: whether alpha makes a difference.
        needs: what it looks at beside the attention maps: "features", "keys". Merging takes features by itself.
        merge: what the patches of a mask stand for, where they are more than themselves.
        quick: whether a mask is made in microseconds once all is prepared; if not, fewer numbers n are tried where
            newlines share the budget (`hired_edge.packing.fit`).
    """

    name: str
    prepare: Prepare
    strict: bool = True
    newlines: str | None = None
    positions: str = "compact"
    stock: bool = False
    uses_alpha: bool = True
    needs: frozenset[str] = frozenset()
    merge: Callable[[View, Mask], Merge] | None = None
    quick: bool = True


def ranks(scores: NDArray) -> NDArray[np.int64]:
    """Place of each patch in its partition by falling score, (T, N), from 0; ties to the lower raster index."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty(scores.shape, dtype=np.int64)
    np.put_along_axis(places, order, np.arange(scores.shape[1])[None], axis=1)
    return places
