"""From attention maps to the tokens that enter the language model: budget, policy and newlines put together.

Pure numpy, no model in sight. A picture's selection depends on its own maps and share of the budget alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.budget import Budget, parse_alpha, parse_budget
from hired_edge.errors import InputError
from hired_edge.finite import check_finite
from hired_edge.packing import fit, gather_index, newline_policy, places, stock, usable_positions
from hired_edge.policies import Policy, policy_named
from hired_edge.policies.policy import Merge, View
from hired_edge.tiling import Tiling

PARTITIONS = ("all", "base")


@dataclass(frozen=True, eq=False)
class Selection:
    """What one picture puts into the language model.

    Args:
        tiling: the picture, cut; without its sub-images if those were left out.
        policy: name of the selection policy.
        budget: visual positions granted to the picture.
        eligible: patches that could be kept.
        counts: tokens kept of each partition, base first, T.
        indices: kept patches of each partition in raster order, T arrays of int64.
        newlines: how many `image_newline` follow rows.
        gather: rows of the flattened features (T*N, D) in splice order, -1 for `image_newline`, int64 (visual_tokens,).
        places: where each of them stands in the stock sequence, int64 (visual_tokens,), rising.
        merge: what kept patches stand for, where they are more than themselves.
    """

    tiling: Tiling
    policy: str
    budget: int
    eligible: int
    counts: list[int]
    indices: list[NDArray[np.int64]]
    newlines: int
    gather: NDArray[np.int64]
    places: NDArray[np.int64]
    merge: Merge | None = None

    @property
    def kept(self) -> int:
        """Tokens kept, newlines not counted."""
        return sum(self.counts)

    @property
    def visual_tokens(self) -> int:
        """Positions taken in the language model's sequence: kept + newlines."""
        return self.kept + self.newlines

    @property
    def unused(self) -> int:
        """Positions granted and not taken."""
        return self.budget - self.visual_tokens


def select(
    tilings: Sequence[Tiling],
    allocation_attention: Sequence[NDArray],
    selection_attention: Sequence[NDArray],
    budget: Budget | str | int,
    policy: str = "hired",
    alpha: float | str | Fraction = 0.5,
    newlines: str | None = None,
    partitions: str = "all",
    *,
    features: Sequence[Callable[[], NDArray]] | None = None,
    keys: Sequence[NDArray | None] | None = None,
) -> list[Selection]:
    """Choose the visual tokens of a request, one `Selection` a picture.

    Args:
        tilings: the pictures, cut.
        allocation_attention: for each picture, CLS attention of the allocation layer summed over heads, float (T, N).
        selection_attention: the same of the selection layer.
        budget: positions for all pictures together, newlines included. 100 % is the stock sequence whatever the policy,
            and so is policy "full" whatever the budget.
        policy: a name in `POLICIES`.
        alpha: the base picture's share of the budget.
        newlines: "none", "kept-rows" or "all-rows"; None for the policy's or the family's own.
        partitions: "all", or "base" to leave the sub-images out: a percentage is then of the base picture's N.
        features: for each picture, what fetches its projected features, (T, N, D) float32.
        keys: for each picture, the selection layer's keys (T, N, W), of a bundle that has them.

    Raises:
        InputError: an unknown policy or newline policy, a budget or alpha out of range, a policy that needs keys
            without any.
        NoSelectionError: a budget below the number of rows under "all-rows", or below what a policy decides to keep.
        NumericalError: attention maps, or keys that the policy looks at, with values that are not finite.
    """
    chosen = policy_named(policy)
    views = [
        View(
            tiling,
            allocation_attention[i],
            selection_attention[i],
            None if features is None else features[i],
            None if keys is None else keys[i],
        )
        for i, tiling in enumerate(tilings)
    ]
    check_partitions(partitions)
    if partitions == "base":
        views = [_base_alone(view) for view in views]
    tilings = [view.tiling for view in views]
    ratio = parse_alpha(alpha)
    budget = budget if isinstance(budget, Budget) else parse_budget(budget)
    if chosen.stock:
        budget = Budget(percent=Fraction(100))
    rows = [newline_policy(tiling, newlines, chosen.newlines) for tiling in tilings]
    most = [tiling.eligible_tokens if chosen.strict else tiling.patches for tiling in tilings]
    usable = [usable_positions(*args) for args in zip(tilings, rows, most, strict=True)]
    charged = [tiling.newlines if each == "all-rows" else 0 for tiling, each in zip(tilings, rows, strict=True)]
    selections = []
    for i, granted in enumerate(budget.split(tilings, usable, charged)):
        view, tiling, merge = views[i], tilings[i], None
        _check("allocation", view.allocation_attention, tiling)
        _check("selection", view.selection_attention, tiling)
        if view.keys is not None and "keys" in chosen.needs:
            check_finite(view.keys, "keys of the vision engine")
        if budget.is_stock:
            packing = stock(tiling)
        else:
            check_needs(chosen, keys=view.keys is not None, features=view.features is not None)
            packing = fit(tiling, chosen.prepare(view, ratio), granted, rows[i], most[i], chosen.quick)
            if chosen.merge is not None:
                merge = chosen.merge(view, packing.mask)
        indices = [np.flatnonzero(partition) for partition in packing.mask]
        selections.append(
            Selection(
                tiling=tiling,
                policy=policy,
                budget=granted,
                eligible=tiling.eligible_tokens,
                counts=[len(kept) for kept in indices],
                indices=indices,
                newlines=int(np.count_nonzero(packing.newline_rows)),
                gather=gather_index(tiling, packing),
                places=places(tiling, packing),
                merge=merge,
            )
        )
    return selections


def check_partitions(partitions: str) -> None:
    """Raises InputError for a choice of partitions that there is not."""
    if partitions not in PARTITIONS:
        raise InputError(f"partitions {partitions!r}", expected=", ".join(PARTITIONS), fix="pass another --partitions")


def check_needs(policy: Policy, *, keys: bool, features: bool = True) -> None:
    """Raises InputError for a policy that looks at what there is not: keys, in most bundles."""
    if "features" in policy.needs and not features:
        raise InputError(
            f"selection policy {policy.name!r} without a picture's features",
            expected="what fetches them, for each picture",
            fix="pass features= to select",
        )
    if "keys" in policy.needs and not keys:
        raise InputError(
            f"selection policy {policy.name!r} with a bundle whose vision graph gives no keys",
            expected="the keys of the selection layer, its output selection_keys",
            fix="export the checkpoint again with --with-keys, or pass another --policy",
        )


def _base_alone(view: View) -> View:
    """The view without its sub-images."""
    features, keys = view.features, view.keys
    return View(
        view.tiling.base_picture,
        view.allocation_attention[:1],
        view.selection_attention[:1],
        None if features is None else lambda: features()[:1],
        None if keys is None else keys[:1],
    )


def _check(name: str, attention: NDArray, tiling: Tiling) -> None:
    assert attention.shape == (tiling.tiles, tiling.rules.patches_per_tile), (name, attention.shape, tiling)
    check_finite(attention, f"{name} attention of the vision engine")
