"""Which of the checkpoint's tensors stands behind every initialiser, and how each is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hired_edge.manifest import FloatType
from hired_edge.tensorfile import DTYPES
from hired_export.checkpoint import Checkpoint
from hired_export.decoder import Decoder, head_rows
from hired_export.families import ModelSpec
from hired_export.graphs import parameter_shapes
from hired_export.packed.report import refuse_unread_biases
from hired_export.quantisation import Scheme
from hired_export.tensor import Tensor


@dataclass(frozen=True)
class Schemes:
    """How the decoder's matrices and the LM head are stored; None = in `dtype`, as all the rest is."""

    decoder: Scheme | None
    lm_head: Scheme | None
    embedding: Literal["F32", "F16", "I8"]
    dtype: FloatType
    vision: Scheme | None = None
    """Of the matrices of tower and projector that the graph holds quantised (`lowering/vision_int8.py`)."""

    @property
    def bits(self) -> int:
        """Of what has no scheme."""
        return 32 if self.dtype == "float32" else 16

    def of(self, weight: str) -> Scheme | None:
        return self.lm_head if weight.startswith("lm_head.") else self.decoder

    def of_tensor(self, name: str, shape: tuple[int, ...]) -> Scheme | None:
        """The scheme of a matrix; None for anything else."""
        return self.of(name) if is_matrix(name, shape) else None


class Sources:
    """The checkpoint's tensor behind every initialiser, found and shape-checked before anything is written."""

    def __init__(self, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        self._checkpoint, self._spec = checkpoint, spec
        self.language = {
            name: self._find(name, f"text.{name}", shape)
            for name, shape in parameter_shapes(Decoder, spec.decoder).items()
            if not name.startswith(("rotary_", "lm_head."))
        }
        self.language |= self._lm_head()
        refuse_unread_biases(checkpoint.tensors, {f"text.{name}" for name in self.language})
        self.vision = {
            name: self._find(name, spec.facts.stored_as(name), shape)
            for name, shape in parameter_shapes(spec.vision.encoder, spec.vision).items()
        }
        width = spec.decoder.hidden_size
        self.embedding = checkpoint.tensor("text.embed_tokens.weight", (spec.decoder.vocab_size, width))
        self.newline = checkpoint.tensor("image_newline", (width,)) if spec.facts.newline else None

    def _lm_head(self) -> dict[str, Tensor]:
        shape = self._spec.decoder
        stored = head_name(self._checkpoint, self._spec)
        whole = self._checkpoint.tensor(stored, (shape.vocab_size, shape.hidden_size))
        if shape.head_parts == 1:
            return {"lm_head.weight": whole}
        rows = head_rows(shape.vocab_size, shape.head_parts)
        return {f"lm_head.{i}.weight": whole.part(*bounds) for i, bounds in enumerate(rows)}

    def _find(self, name: str, stored: str, shape: tuple[int, ...]) -> Tensor:
        # Graphs hold matrices (in, out), checkpoints (out, in).
        return self._checkpoint.tensor(stored, shape[::-1] if is_matrix(name, shape) else shape)

    def input_bytes(self) -> int:
        """Weights to stream, as float32 (what the progress bar counts)."""
        return sum(tensor.float_bytes for tensor in (*self.language.values(), *self.vision.values(), self.embedding))

    def output_bytes(self, stored: Schemes) -> int:
        """About what the bundle will take on disk: weights and embedding, without graphs and small files."""

        plain = 4 if stored.dtype == "float32" else 2

        def size(tensor: Tensor, scheme: Scheme | None) -> int:
            elements = math.prod(tensor.shape)
            if scheme is None:
                return plain * elements
            return elements * scheme.bits // 8 + plain * elements // scheme.storage_block

        total = sum(size(tensor, stored.of_tensor(name, tensor.shape)) for name, tensor in self.language.items())
        for name, tensor in self.vision.items():
            total += size(tensor, stored.vision if is_matrix(name, tensor.shape) else None)
        return total + math.prod(self.embedding.shape) * DTYPES[stored.embedding].itemsize


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether an initialiser is a projection's weight, stored transposed in the graph."""
    return name.endswith(".weight") and len(shape) == 2 and "embedding" not in name and "embed_tokens" not in name


def head_name(checkpoint: Checkpoint, spec: ModelSpec) -> str:
    """The tensor behind the LM head. What is stored counts, as in transformers, whatever the config says: InternVL's
    leaves `tie_word_embeddings` out, which means yes, where its head is a matrix of its own."""
    return "text.embed_tokens.weight" if spec.tied and "lm_head.weight" not in checkpoint.tensors else "lm_head.weight"
