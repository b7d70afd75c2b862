"""What stands in a row of the key-value cache, position by position: the prefix cache's notion of "the same".

A slot's keys and values are a function of the tokens up to it and of their rotary positions. So each slot is named by
what was put there: a text token by its id, a visual token by its picture, how it was chosen where that shapes it, and
its patch. Two sequences whose names agree up to a slot have the same cache up to it, but for rounding: another prefill
may have cut them into other shapes. Knows no engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hired_edge.packing import NEWLINE
from hired_edge.selection import Selection
from hired_runtime.backend import Ints
from hired_runtime.prompt import EncodedPrompt

Names = NDArray[np.int64]
"""(S, 4): two words that name a picture (0 for text), the token's id or the patch's row, and the rotary position."""

NOTHING: Names = np.zeros((0, 4), np.int64)


def names_of(
    prompt: EncodedPrompt, selections: Sequence[Selection], pictures: Sequence[bytes], positions: Ints
) -> Names:
    """The names of a spliced prompt, (S, 4) int64.

    Args:
        prompt: encoded, with a place for each picture.
        selections: one a picture.
        pictures: what each picture is known by: a digest of its contents.
        positions: of every token in the rotary embedding, (S,).
    """
    parts, done = [], 0
    for at, selection, picture in zip(prompt.splices, selections, pictures, strict=True):
        parts += [_text(prompt.ids[done:at]), _visual(selection, picture)]
        done = at
    tokens = np.concatenate([*parts, _text(prompt.ids[done:])])
    return np.concatenate([tokens, positions[:, None]], axis=1)


def name_of(token: int, position: int) -> Names:
    """The name of one generated token, (1, 4) int64."""
    return np.array([[0, 0, token, position]], np.int64)


def common(first: Names, second: Names) -> int:
    """How many names two sequences begin with alike."""
    shortest = min(len(first), len(second))
    differs = (first[:shortest] != second[:shortest]).any(axis=1)
    return int(differs.argmax()) if differs.any() else shortest


def _text(ids: Ints) -> Names:
    return np.concatenate([np.zeros((len(ids), 2), np.int64), ids[:, None]], axis=1)


def _visual(selection: Selection, picture: bytes) -> Names:
    digest = hashlib.sha256(picture)
    if selection.merge is not None:  # then a token is more than its patch: it depends on every other choice
        for array in (selection.gather, *selection.merge):
            digest.update(np.ascontiguousarray(array).tobytes())
    words = np.frombuffer(digest.digest()[:16], np.int64)
    tokens = np.concatenate([np.broadcast_to(words, (len(selection.gather), 2)), selection.gather[:, None]], axis=1)
    tokens[selection.gather == NEWLINE, :2] = 0  # one embedding, whatever the picture; no text has this id
    return tokens
