"""The order of kept tokens in the language model's sequence, and which mosaic rows end in an `image_newline`.

Order: the family's own of the whole picture (`Tiling.stock_order`), without what is left out. LLaVA-NeXT: base tokens
in raster order, then those of the merged mosaic (a row runs across tiles), each row followed by its newline if it gets
one. InternVL: tile after tile, then the base picture, no newlines. Knows masks and positions, not how tokens were
chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import InputError, NoSelectionError
from hired_edge.geometry import NEWLINE
from hired_edge.tiling import Tiling

NEWLINES = ("none", "kept-rows", "all-rows")

__all__ = [
    "NEWLINE",
    "NEWLINES",
    "Packing",
    "check_newlines",
    "fit",
    "gather_index",
    "kept_rows",
    "newline_policy",
    "places",
    "stock",
    "stock_gather",
    "usable_positions",
]


@dataclass(frozen=True, eq=False)
class Packing:
    """What enters the language model: kept patches, bool (T, N), and rows that end in a newline, bool (newlines,).

    `newlines` is the tiling's: R, or 0 for a family without any.
    """

    mask: NDArray[np.bool_]
    newline_rows: NDArray[np.bool_]

    @property
    def positions(self) -> int:
        """Tokens and newlines together."""
        return int(np.count_nonzero(self.mask)) + int(np.count_nonzero(self.newline_rows))


def check_newlines(asked: str | None) -> None:
    """Raises InputError for a newline policy that there is not; None, the default's place, is one."""
    if asked is not None and asked not in NEWLINES:
        raise InputError(f"newline policy {asked!r}", expected=", ".join(NEWLINES), fix="pass another --newlines")


def newline_policy(tiling: Tiling, asked: str | None, default: str | None = None) -> str:
    """The newline policy in force: what the user asked for, else the selection policy's default, else the family's own.

    Raises:
        InputError: an unknown name, or newlines for a family that has none.
    """
    check_newlines(asked)
    if not tiling.rules.geometry.newlines:
        if asked not in (None, "none"):
            got = f"newline policy {asked!r} for one tile (a base picture alone, or a model without a grid)"
            if tiling.rules.geometry.canvases:
                got = f"newline policy {asked!r} for a model without newlines"
            raise InputError(got, expected='"none"', fix="leave --newlines out")
        return "none"
    return asked or default or "kept-rows"


def usable_positions(tiling: Tiling, newlines: str, max_tokens: int) -> int:
    """The most positions that a picture can take: `max_tokens` and the newlines that can go with them."""
    return (
        max_tokens
        + {"none": 0, "kept-rows": tiling.newlines if tiling.columns else 0, "all-rows": tiling.newlines}[newlines]
    )


def stock(tiling: Tiling) -> Packing:
    """Everything that `transformers` packs: all eligible patches, a newline after every row."""
    return Packing(tiling.eligible, np.ones(tiling.newlines, dtype=np.bool_))


def fit(
    tiling: Tiling,
    keep: Callable[[int], NDArray[np.bool_]],
    budget: int,
    newlines: str,
    max_tokens: int,
    every: bool = True,
) -> Packing:
    """Spend a budget on tokens and newlines.

    "none": all on tokens. "all-rows": the rows first, tokens with the rest. "kept-rows": the most tokens that fit with
    a newline after each row that keeps one. One token fewer may empty a row or, through phase 1, fill another, so the
    rows need not fall with the tokens: every number is tried, downwards from the budget.

    Args:
        keep: the kept mask (T, N) for a number of tokens, at most that many in it.
        budget: positions.
        newlines: one of `NEWLINES`.
        max_tokens: the highest number worth asking `keep` for.
        every: False tries fewer numbers, by halving: they come to the same if more tokens never empty a row, and to
            what fits in any case.

    Raises:
        NoSelectionError: "all-rows" with a budget below the number of rows.
    """
    rows = np.zeros(tiling.newlines, dtype=np.bool_)
    if newlines == "none":
        return Packing(keep(min(budget, max_tokens)), rows)
    if newlines == "all-rows":
        if budget < tiling.newlines:
            raise NoSelectionError(
                f"a budget of {budget} visual tokens for a picture of {tiling.newlines} rows",
                expected=f'at least {tiling.newlines} with newline policy "all-rows"',
                fix="raise --visual-tokens, or pass --newlines kept-rows",
            )
        return Packing(keep(min(budget - tiling.newlines, max_tokens)), ~rows)

    def packed(tokens: int) -> Packing:
        mask = keep(tokens)
        return Packing(mask, kept_rows(tiling, mask))

    tokens = min(budget, max_tokens)
    if not every:
        return _halved(packed, budget, max(0, min(tokens, budget - tiling.newlines)), tokens)
    while (packing := packed(tokens)).positions > budget:
        assert tokens > 0, "a policy kept tokens for a budget of 0"
        tokens -= 1
    return packing


def _halved(packed: Callable[[int], Packing], budget: int, fitting: int, most: int) -> Packing:
    """What fits of `fitting` tokens, which do whatever rows they keep, to `most`."""
    best = packed(fitting) if 2 * fitting >= most else None  # with all rows kept, that is what it comes to
    while fitting < most and (best is None or best.positions < budget):
        tokens = (fitting + most + 1) // 2
        packing = packed(tokens)
        if packing.positions <= budget:
            best, fitting = packing, tokens
        else:
            most = tokens - 1
    return packed(fitting) if best is None else best


def kept_rows(tiling: Tiling, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the R mosaic rows keep at least one token, (R,)."""
    return np.logical_or.reduce(mask.take(tiling.window_index), axis=1)


def gather_index(tiling: Tiling, packing: Packing) -> NDArray[np.int64]:
    """Rows of the flattened features (T*N, D) in splice order, int64, -1 (`NEWLINE`) for `image_newline`."""
    return tiling.stock_order[_taken(tiling, packing)]


def places(tiling: Tiling, packing: Packing) -> NDArray[np.int64]:
    """Where each position of `gather_index` stands in the stock sequence, int64, rising."""
    return np.flatnonzero(_taken(tiling, packing))


def _taken(tiling: Tiling, packing: Packing) -> NDArray[np.bool_]:
    """Which positions of the stock sequence are taken, (stock_tokens,)."""
    taken = packing.mask.reshape(-1)[tiling.stock_order]  # -1 takes what is overwritten next
    taken[tiling.stock_order == NEWLINE] = packing.newline_rows
    return taken


def stock_gather(tiling: Tiling) -> NDArray[np.int64]:
    """The gather index at 100 %: the order in which `transformers` packs the picture."""
    return tiling.stock_order
