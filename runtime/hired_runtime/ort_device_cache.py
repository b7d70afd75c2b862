"""The key-value cache in memory that ONNX Runtime allocates on a device; its rules are `hired_runtime.cache`'s."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from hired_edge.manifest import TextModel
from hired_runtime.backend import Ints
from hired_runtime.cache import CacheRules, Place
from hired_runtime.ort_errors import reported


class DeviceCache(CacheRules):
    """2 L tensors (B, G, M, Dh) on the first `device` ("cuda"). They never move and are never copied."""

    def __init__(self, text: TextModel, batch: int, max_sequence_length: int, device: str = "cuda") -> None:
        assert text.cache == "in_place", text.cache
        super().__init__(text, max_sequence_length)
        self._device = device
        self._zeros = np.zeros((batch, text.kv_heads, max_sequence_length, text.head_dim), text.cache_dtype)
        with reported("allocate the cache", fix="open with a smaller --visual-tokens or fewer rows"):
            allocate = ort.OrtValue.ortvalue_from_shape_and_type
            shape, dtype = self._zeros.shape, self._zeros.dtype.type
            self._values: list[Any] = [allocate(shape, dtype, device, 0) for _ in self.names.past]
        self.reset()

    @property
    def nbytes(self) -> int:
        return len(self._values) * self._zeros.nbytes

    def reset(self) -> None:
        with reported("clear the cache"):
            for value in self._values:
                value.update_inplace(self._zeros)

    def reset_row(self, row: int) -> bool:
        return False  # as below

    def copy(self, source: int, target: int, tokens: int) -> bool:
        return False  # ONNX Runtime's Python interface copies whole tensors alone

    def places(self, batch: int, first: int = 0) -> list[Place]:
        """Where `batch` rows from `first` on lie."""
        shape, skipped = (batch, *self._zeros.shape[1:]), first * self._zeros[0].nbytes
        return [Place(self._device, 0, self._zeros.dtype, shape, value.data_ptr() + skipped) for value in self._values]

    def append(self, index: int, update: NDArray, starts: Ints, first: int = 0) -> None:
        raise AssertionError("an append graph runs on the CPU")
