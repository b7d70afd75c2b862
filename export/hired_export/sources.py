"""Which of the checkpoint's tensors stands behind every initialiser, and how each is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hired_export.checkpoint import Checkpoint, Tensor
from hired_export.decoder import Decoder
from hired_export.families import ModelSpec
from hired_export.graphs import parameter_shapes
from hired_export.quantisation import Scheme
from hired_export.vision import VisionEncoder


@dataclass(frozen=True)
class Schemes:
    """How the decoder's matrices and the LM head are stored; None = float32."""

    decoder: Scheme | None
    lm_head: Scheme | None
    embedding: str

    def of(self, weight: str) -> Scheme | None:
        return self.lm_head if weight.startswith("lm_head.") else self.decoder


class Sources:
    """The checkpoint's tensor behind every initialiser, found and shape-checked before anything is written."""

    def __init__(self, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        self._checkpoint, self._spec = checkpoint, spec
        self.language = {
            name: self._find(name, self._language_name(name), shape)
            for name, shape in parameter_shapes(Decoder, spec.decoder).items()
            if not name.startswith("rotary_")
        }
        self.vision = {
            name: self._find(name, _vision_name(name), shape)
            for name, shape in parameter_shapes(VisionEncoder, spec.vision).items()
        }
        width = spec.decoder.hidden_size
        self.embedding = checkpoint.tensor("text.embed_tokens.weight", (spec.decoder.vocab_size, width))
        self.newline = checkpoint.tensor("image_newline", (width,)) if spec.facts.newline else None

    def _language_name(self, name: str) -> str:
        if name != "lm_head.weight":
            return f"text.{name}"
        # A tied head is often not stored; where it is, it is the same matrix.
        return "text.embed_tokens.weight" if self._spec.tied else name

    def _find(self, name: str, stored: str, shape: tuple[int, ...]) -> Tensor:
        # Graphs hold matrices (in, out), checkpoints (out, in). The graph's name says which it is: a tied head is
        # stored as the embedding table.
        return self._checkpoint.tensor(stored, shape[::-1] if is_matrix(name, shape) else shape)

    def input_bytes(self) -> int:
        """Weights to stream, as float32 (what the progress bar counts)."""
        return sum(tensor.float_bytes for tensor in (*self.language.values(), *self.vision.values(), self.embedding))

    def output_bytes(self, stored: Schemes) -> int:
        """About what the bundle will take on disk: weights and embedding, without graphs and small files."""

        def size(name: str, tensor: Tensor) -> int:
            scheme = stored.of(name) if is_matrix(name, tensor.shape) else None
            elements = math.prod(tensor.shape)
            return (
                4 * elements if scheme is None else elements * scheme.bits // 8 + 4 * elements // scheme.storage_block
            )

        total = sum(size(name, tensor) for name, tensor in self.language.items())
        total += sum(tensor.float_bytes for tensor in self.vision.values())
        return total + math.prod(self.embedding.shape) * (4 if stored.embedding == "F32" else 2)


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether an initialiser is a projection's weight, stored transposed in the graph."""
    return name.endswith(".weight") and len(shape) == 2 and "embedding" not in name and "embed_tokens" not in name


def _vision_name(name: str) -> str:
    if name.startswith("multi_modal_projector."):
        return name.replace("multi_modal_projector.", "projector.", 1)
    return f"vision.encoder.{name}" if name.startswith("layers.") else f"vision.{name}"
