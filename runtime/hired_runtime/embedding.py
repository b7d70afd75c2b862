"""Token embeddings: a table on disk, mapped, its rows gathered and widened in numpy. No engine's business."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hired_edge.bundle import Bundle
from hired_edge.errors import BundleError
from hired_edge.tensorfile import TensorFile
from hired_runtime.backend import Floats, Ints


class Embedding:
    """`embed_tokens` (V, D) mapped, scales of its rows where they are int8; `image_newline` (D) where there is one."""

    def __init__(self, bundle: Bundle) -> None:
        file = TensorFile(bundle.path(bundle.manifest.embedding), BundleError)
        text = bundle.manifest.text
        self._table = file.mapped("embed_tokens")
        if self._table.shape != (text.vocab_size, text.hidden_size):
            raise BundleError(
                f"the embedding table has shape {self._table.shape}",
                expected=f"({text.vocab_size}, {text.hidden_size}), from the manifest",
                fix="export the bundle again",
            )
        quantised = bundle.manifest.quantisation.embedding_dtype == "int8"
        self._scales: Floats | None = _scales(file, self._table) if quantised else None
        newline = file.read("image_newline") if bundle.manifest.vision.newline else np.zeros(text.hidden_size)
        self.newline: Floats = newline.astype(np.float32)

    def rows(self, ids: Ints) -> Floats:
        """Embeddings (len(ids), D) float32."""
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self._table):
            raise BundleError(
                f"the tokenizer gives token id {ids.max()}",
                expected=f"0 to {len(self._table) - 1}, the model's vocabulary",
                fix="export again from a checkpoint whose tokenizer belongs to its weights",
            )
        rows = self._table[ids].astype(np.float32)
        return rows if self._scales is None else rows * self._scales[ids, None]


def _scales(file: TensorFile, table: NDArray[Any]) -> Floats:
    """One float32 a row of an int8 table."""
    scales = file.read("embed_tokens.scales")
    if table.dtype != np.int8 or scales.dtype != np.float32 or scales.shape != table.shape[:1]:
        raise BundleError(
            f"an embedding table of {table.dtype} with scales of {scales.dtype}, {scales.shape}",
            expected=f"int8 rows and a float32 scale for each of the {len(table)}, by the manifest",
            fix="export the bundle again",
        )
    return scales
