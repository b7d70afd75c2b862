"""What an engine must offer: two small protocols, fulfilled by ONNX Runtime (`ort.py`) and TensorRT (`trt`).

Features stay where the engine left them; only the attention maps and the kept rows cross. Both engines own every
buffer they need from the moment they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class AttentionMaps(NamedTuple):
    """CLS attention to every patch, summed over heads: (T, N) float32 each.

    `keys`: (T, N, W) float32, the selection layer's keys, of a graph that gives them.
    """

    allocation: Floats
    selection: Floats
    keys: Floats | None = None


class VisionEngine(Protocol):
    """Tiles in, attention maps out; the projected features wait inside to be gathered."""

    def encode(self, pixel_values: Floats, slot: int = 0) -> AttentionMaps:
        """Runs the tower on one picture, (T, 3, h, w), and keeps its features as picture `slot` of the request."""
        ...

    def gather(self, rows: Ints, slot: int = 0) -> Floats:
        """Rows of picture `slot`'s flattened features (T * N, D): (len(rows), D), a copy."""
        ...


class LanguageEngine(Protocol):
    """The decoder with its cache. A step writes the cache first, then attends to it."""

    def step(
        self, inputs_embeds: Floats, starts: Ints, last_token: Ints, positions: Ints | None = None, first: int = 0
    ) -> Floats:
        """One prefill or decode step.

        Args:
            inputs_embeds: (B, S, D); rows shorter than S end in zeros.
            starts: (B) first cache slot of each row.
            last_token: (B) index in S of each row's last real token.
            positions: (B, S) of each token in the rotary embedding; None for those of its slots.
            first: row of the cache that the first of these rows is; the others follow it.

        Returns:
            logits (B, V) of each row's last token, valid until the next step.
        """
        ...

    def copy(self, source: int, target: int, tokens: int) -> bool:
        """Copies the first `tokens` slots of a row of the cache to another row; False where the engine cannot."""
        ...

    def reset(self) -> None:
        """Fills the cache with zeros: after a request that ended in error."""
        ...

    def reset_row(self, row: int) -> bool:
        """Fills one row of the cache with zeros; False where the engine cannot."""
        ...


class Backend(NamedTuple):
    """A pair of loaded engines.

    Attributes:
        name: the library, its version, and what it runs on.
        slots: M of the cache, at least the opening's.
        close: releases what is not numpy's; the engines are not to be used afterwards.
    """

    vision: VisionEngine
    language: LanguageEngine
    name: str
    slots: int
    close: Callable[[], None]
