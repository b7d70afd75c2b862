"""Where a prompt's tokens stand for the rotary embedding: side by side, or as in the sequence that was not cut.

The paper renumbers what it keeps ("compact") and names the spatial information that this loses as its limitation.
"original" gives every kept token, and the text behind the picture, the position that it has in the stock sequence.
Slots of the cache are filled without gaps either way, so the cache stays as small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hired_edge.errors import InputError, LimitError
from hired_edge.manifest import TextModel
from hired_edge.policies import policy_named
from hired_edge.selection import Selection
from hired_runtime.backend import Ints
from hired_runtime.prompt import EncodedPrompt

POSITIONS = ("compact", "original")


def check_positions(asked: str | None) -> None:
    """Raises InputError for a way to number tokens that there is not; None, the default's place, is one."""
    if asked is not None and asked not in POSITIONS:
        raise InputError(f"positions {asked!r}", expected=", ".join(POSITIONS), fix="pass another --positions")


def positions_in_force(policy: str, asked: str | None) -> str:
    """What the user asked for, else the selection policy's own."""
    return policy_named(policy).positions if asked is None else asked


def original_positions(prompt: EncodedPrompt, selections: Sequence[Selection]) -> Ints:
    """Position of every token of a spliced prompt in the stock sequence, (S,) int64, rising.

    Args:
        prompt: encoded, with a place for each picture.
        selections: one a picture.
    """
    parts, done, at = [], 0, 0
    for splice, selection in zip(prompt.splices, selections, strict=True):
        parts += [at + np.arange(splice - done), at + splice - done + selection.places]
        at += splice - done + selection.tiling.stock_tokens
        done = splice
    return np.concatenate([*parts, at + np.arange(len(prompt.ids) - done)])


def check_reach(text: TextModel, positions: Ints, new_tokens: int) -> None:
    """Whether the language model has a place for the last token that may be generated.

    Raises:
        LimitError: its rotary tables are shorter, or its sliding window, which counts slots, would end before it.
    """
    last = int(positions[-1]) + new_tokens
    if last > text.positions:
        raise LimitError(
            f"original positions up to {last}",
            expected=f"at most {text.positions}, the length of the rotary tables",
            fix="ask for fewer new tokens, or for compact positions",
        )
    gaps = int(positions[-1]) >= len(positions)
    if gaps and text.sliding_window is not None and last > text.sliding_window:
        raise LimitError(
            f"original positions up to {last} for a model with a sliding window of {text.sliding_window}",
            expected="the whole stock sequence inside the window, which is counted in slots of the cache",
            fix="ask for compact positions",
        )


def padded_positions(rows: Sequence[Ints], text: TextModel) -> Ints:
    """Rows (S_i,) as one array (B, S). Padding stands behind its row, so that no token of the row sees it."""
    longest = max(map(len, rows))
    padded = [np.concatenate([row, row[-1] + 1 + np.arange(longest - len(row))]) for row in rows]
    return np.minimum(np.stack(padded), text.positions - 1)
