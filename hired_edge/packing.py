"""The order of kept tokens in the language model's sequence, and which mosaic rows end in an `image_newline`.

Order: kept base tokens in raster order, then kept mosaic tokens in raster order of the merged mosaic (a row runs across
tiles), each row followed by its newline if it gets one. Knows masks and positions, not how tokens were chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import InputError, LimitError
from hired_edge.tiling import Tiling

NEWLINES = ("none", "kept-rows", "all-rows")
NEWLINE = -1  # what stands for `image_newline` in a gather index


@dataclass(frozen=True, eq=False)
class Packing:
    """What enters the language model: kept patches, bool (T, N), and mosaic rows that end in a newline, bool (R,)."""

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
    if tiling.rules.kind == "single":
        if asked not in (None, "none"):
            got = f"newline policy {asked!r} for a model that sees one tile, without newlines"
            raise InputError(got, expected='"none"', fix="leave --newlines out")
        return "none"
    return asked or default or "kept-rows"


def usable_positions(tiling: Tiling, newlines: str, max_tokens: int) -> int:
    """The most positions that a picture can take: `max_tokens` and the newlines that can go with them."""
    return (
        max_tokens + {"none": 0, "kept-rows": tiling.rows if tiling.columns else 0, "all-rows": tiling.rows}[newlines]
    )


def stock(tiling: Tiling) -> Packing:
    """Everything that `transformers` packs: all eligible patches, a newline after every row."""
    return Packing(tiling.eligible, np.ones(tiling.rows, dtype=np.bool_))


def fit(
    tiling: Tiling, keep: Callable[[int], NDArray[np.bool_]], budget: int, newlines: str, max_tokens: int
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

    Raises:
        LimitError: "all-rows" with a budget below the number of rows.
    """
    rows = np.zeros(tiling.rows, dtype=np.bool_)
    if newlines == "none":
        return Packing(keep(min(budget, max_tokens)), rows)
    if newlines == "all-rows":
        if budget < tiling.rows:
            raise LimitError(
                f"a budget of {budget} visual tokens for a picture of {tiling.rows} rows",
                expected=f'at least {tiling.rows} with newline policy "all-rows"',
                fix="raise --visual-tokens, or pass --newlines kept-rows",
            )
        return Packing(keep(min(budget - tiling.rows, max_tokens)), ~rows)
    for tokens in range(min(budget, max_tokens), -1, -1):
        mask = keep(tokens)
        packing = Packing(mask, kept_rows(tiling, mask))
        if packing.positions <= budget:
            return packing
    raise AssertionError("a policy kept tokens for a budget of 0")


def kept_rows(tiling: Tiling, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the R mosaic rows keep at least one token, (R,)."""
    return np.logical_or.reduce(mask.take(tiling.window_index), axis=1)


def gather_index(tiling: Tiling, packing: Packing) -> NDArray[np.int64]:
    """Rows of the flattened features (T*N, D) in splice order, int64, -1 (`NEWLINE`) for `image_newline`."""
    newline = np.full((tiling.rows, 1), NEWLINE, dtype=np.int64)
    mosaic = np.concatenate([tiling.window_index, newline], axis=1)
    kept = np.concatenate([packing.mask.reshape(-1)[tiling.window_index], packing.newline_rows[:, None]], axis=1)
    return np.concatenate([np.flatnonzero(packing.mask[0]), mosaic[kept]])


def stock_gather(tiling: Tiling) -> NDArray[np.int64]:
    """The gather index at 100 %: the order in which `transformers` packs the picture."""
    return gather_index(tiling, stock(tiling))
