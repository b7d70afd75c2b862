"""From attention maps to the tokens that enter the language model: budget, policy and newlines put together.

Pure numpy, no model in sight. A picture's selection depends on its own maps and share of the budget alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hired_edge.budget import Budget, parse_alpha, parse_budget
from hired_edge.errors import BundleError
from hired_edge.packing import fit, gather_index, newline_policy, stock, usable_positions
from hired_edge.policies import policy_named
from hired_edge.tiling import Tiling


@dataclass(frozen=True, eq=False)
class Selection:
    """What one picture puts into the language model.

    Args:
        tiling: the picture, cut.
        policy: name of the selection policy.
        budget: visual positions granted to the picture.
        eligible: patches that could be kept.
        counts: tokens kept of each partition, base first, T.
        indices: kept patches of each partition in raster order, T arrays of int64.
        newlines: how many `image_newline` follow rows.
        gather: rows of the flattened features (T*N, D) in splice order, -1 for `image_newline`, int64 (visual_tokens,).
    """

    tiling: Tiling
    policy: str
    budget: int
    eligible: int
    counts: list[int]
    indices: list[NDArray[np.int64]]
    newlines: int
    gather: NDArray[np.int64]

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

    Raises:
        InputError: an unknown policy or newline policy, a budget or alpha out of range.
        LimitError: a budget below the number of rows under "all-rows".
        BundleError: attention maps with values that are not finite.
    """
    assert len(tilings) == len(allocation_attention) == len(selection_attention)
    chosen = policy_named(policy)
    ratio = parse_alpha(alpha)
    budget = budget if isinstance(budget, Budget) else parse_budget(budget)
    if chosen.stock:
        budget = Budget(percent=Fraction(100))
    rows = [newline_policy(tiling, newlines, chosen.newlines) for tiling in tilings]
    most = [tiling.eligible_tokens if chosen.strict else tiling.patches for tiling in tilings]
    usable = [usable_positions(*args) for args in zip(tilings, rows, most, strict=True)]
    charged = [tiling.rows if each == "all-rows" else 0 for tiling, each in zip(tilings, rows, strict=True)]
    selections = []
    for i, granted in enumerate(budget.split(tilings, usable, charged)):
        tiling, attention = tilings[i], (allocation_attention[i], selection_attention[i])
        _check("allocation", attention[0], tiling)
        _check("selection", attention[1], tiling)
        if budget.is_stock:
            packing = stock(tiling)
        else:
            packing = fit(tiling, chosen.prepare(tiling, *attention, ratio), granted, rows[i], most[i])
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
            )
        )
    return selections


def _check(name: str, attention: NDArray, tiling: Tiling) -> None:
    assert attention.shape == (tiling.tiles, tiling.rules.patches_per_tile), (name, attention.shape, tiling)
    broken = attention.size - int(np.count_nonzero(np.isfinite(attention)))
    if broken:
        got = f"{name} attention with {broken} values of {attention.size} that are not finite"
        raise BundleError(got, expected="finite", fix="the vision engine is broken: run `hired-edge verify`")
