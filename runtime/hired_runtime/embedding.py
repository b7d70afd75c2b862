"""Token embeddings: a table on disk, mapped, its rows gathered in numpy. No engine's business."""

from __future__ import annotations

import numpy as np

from hired_edge.bundle import Bundle
from hired_edge.errors import BundleError
from hired_edge.tensorfile import TensorFile
from hired_runtime.backend import Floats, Ints


class Embedding:
    """`embed_tokens` (V, D) mapped, and `image_newline` (D) where the family has one."""

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
        return self._table[ids].astype(np.float32)
