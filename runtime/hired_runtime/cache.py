"""The key-value cache: the rules that every step obeys, and a cache of numpy arrays, one a layer and part.

Rules (design, "Cache rules"): zero-filled at load and after an error; every query row, padding included, sees at least
one key; starts + S <= M in each row; the arrays never move. Two kinds of graph are served: `in_place` graphs get the
cache as past and present at the same address, `append` graphs return the new keys and values alone, which are written
behind the past. A cache on a device keeps the rules (`CacheRules`) and has its own storage.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hired_edge.manifest import TextModel
from hired_runtime.backend import Ints


class CacheNames(NamedTuple):
    """Graph inputs and outputs, in the order of the arrays."""

    past: list[str]
    present: list[str]


class Place(NamedTuple):
    """Where a tensor lies, in the order in which an I/O binding of ONNX Runtime takes it."""

    device: str
    device_id: int
    dtype: np.dtype
    shape: tuple[int, ...]
    address: int


class CacheRules:
    """What holds wherever the cache lies: 2 L arrays (B, G, M, Dh), key and value of layer 0, of layer 1, ..."""

    def __init__(self, text: TextModel, max_sequence_length: int) -> None:
        self.slots = max_sequence_length
        self.kind = text.cache
        self.window = text.sliding_window
        parts = [(i, part) for i in range(text.layers) for part in ("key", "value")]
        self.names = CacheNames(
            past=[f"past_key_values.{i}.{part}" for i, part in parts],
            present=[f"present.{i}.{part}" for i, part in parts],
        )

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

    def step_inputs(
        self,
        inputs_embeds: NDArray,
        starts: Ints,
        last_token: Ints,
        names: Collection[str],
        positions: Ints | None = None,
    ) -> dict[str, NDArray]:
        """What a step feeds besides the cache: those of a graph's inputs (`names`) that are no past."""
        tokens = inputs_embeds.shape[1]
        feeds = {
            "inputs_embeds": inputs_embeds,
            "position_ids": starts[:, None] + np.arange(tokens) if positions is None else positions,
            "write_indices": starts,
            "last_token": last_token,
        }
        if "attention_mask" in names:  # the one that takes time to make
            feeds["attention_mask"] = self.attention_mask(starts, tokens)
        return {name: array for name, array in feeds.items() if name in names}


class KVCache(CacheRules):
    """The cache in numpy arrays."""

    def __init__(self, text: TextModel, batch: int, max_sequence_length: int) -> None:
        super().__init__(text, max_sequence_length)
        shape = (batch, text.kv_heads, max_sequence_length, text.head_dim)
        # calloc: pages that no request reaches are never touched, and never in memory.
        self.arrays = [np.zeros(shape, text.cache_dtype) for _ in range(2 * text.layers)]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def reset(self) -> None:
        for array in self.arrays:
            array.fill(0)

    def reset_row(self, row: int) -> bool:
        for array in self.arrays:
            array[row].fill(0)
        return True

    def copy(self, source: int, target: int, tokens: int) -> bool:
        for array in self.arrays:
            array[target, :, :tokens] = array[source, :, :tokens]
        return True

    def places(self, batch: int, first: int = 0) -> list[Place]:
        """Where `batch` rows from `first` on lie."""
        rows = [array[first : first + batch] for array in self.arrays]
        return [Place("cpu", 0, array.dtype, array.shape, array.ctypes.data) for array in rows]

    def append(self, index: int, update: NDArray, starts: Ints, first: int = 0) -> None:
        """Writes the new keys or values (B, G, S, Dh) of an `append` graph behind the past of rows from `first` on."""
        tokens = update.shape[2]
        for row, start in enumerate(starts):
            self.arrays[index][first + row, :, start : start + tokens] = update[row]
