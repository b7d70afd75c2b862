"""The key-value cache: one numpy array a layer and part, allocated once, and the rules that every step obeys.

Rules (design, "Cache rules"): zero-filled at load and after an error; every query row, padding included, sees at least
one key; starts + S <= M in each row; the arrays never move. Two kinds of graph are served: `in_place` graphs get the
cache as past and present at the same address, `append` graphs return the new keys and values alone, which are written
here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hired_edge.manifest import TextModel
from hired_runtime.backend import Ints


class CacheNames(NamedTuple):
    """Graph inputs and outputs, in the order of the arrays."""

    past: list[str]
    present: list[str]


class KVCache:
    """2 L arrays (B, G, M, Dh), in the order of the graph's inputs: key and value of layer 0, of layer 1, ..."""

    def __init__(self, text: TextModel, batch: int, max_sequence_length: int) -> None:
        self.slots = max_sequence_length
        self.kind = text.cache
        self.window = text.sliding_window
        shape = (batch, text.kv_heads, max_sequence_length, text.head_dim)
        # calloc: pages that no request reaches are never touched, and never in memory.
        self.arrays = [np.zeros(shape, text.cache_dtype) for _ in range(2 * text.layers)]
        parts = [(i, part) for i in range(text.layers) for part in ("key", "value")]
        self.names = CacheNames(
            past=[f"past_key_values.{i}.{part}" for i, part in parts],
            present=[f"present.{i}.{part}" for i, part in parts],
        )

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def reset(self) -> None:
        for array in self.arrays:
            array.fill(0)

    def check_step(self, starts: Ints, tokens: int) -> None:
        assert (starts >= 0).all(), starts
        assert (starts + tokens <= self.slots).all(), f"slots {starts} + {tokens} of {self.slots}"

    def attention_mask(self, starts: Ints, tokens: int) -> NDArray[np.bool_]:
        """Which slots each query may see: (B, 1, S, M) bool.

        A query at position p sees slots 0..p (of a sliding window, the last `window` of them), itself included. In an
        `append` graph the new keys are not in the cache yet: there the mask covers the past alone.
        """
        slots = np.arange(self.slots)
        positions = (starts[:, None] + np.arange(tokens))[:, :, None]  # (B, S, 1)
        seen = slots <= positions
        if self.window is not None:
            seen &= slots > positions - self.window
        if self.kind == "append":
            seen &= slots < starts[:, None, None]
        return seen[:, None]

    def append(self, index: int, update: NDArray, starts: Ints) -> None:
        """Writes the new keys or values (B, G, S, Dh) of an `append` graph behind each row's past."""
        tokens = update.shape[2]
        for row, start in enumerate(starts):
            self.arrays[index][row, :, start : start + tokens] = update[row]
