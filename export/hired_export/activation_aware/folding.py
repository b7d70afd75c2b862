"""What a search found: factors of channels that cancel each other, and how much an input's error counts.

The inputs of a matrix are multiplied by s before it is quantised, so that channels with large activations keep more of
their precision; the layer in front, whose outputs these are, is divided by s. Nothing changes but the rounding. Which
layer stands in front of which is `FOLDS`: only such whose outputs go there and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hired_export.checkpoint import Checkpoint
from hired_export.quantisation import Scheme, quantise
from hired_export.tensor import Tensor

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Fold:
    """Layers of a decoder layer that share factors.

    Args:
        front: the layer whose outputs are divided: a norm, or a product with its bias.
        readers: the products whose inputs are multiplied.
        shared: whether an output of `front` is the input of several channels: a kv head's, of each of its query heads.
    """

    front: str
    readers: tuple[str, ...]
    shared: bool = False


FOLDS = (
    Fold("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    Fold("self_attn.v_proj", ("self_attn.o_proj",), shared=True),
    Fold("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    Fold("mlp.up_proj", ("mlp.down_proj",)),
)


@dataclass(frozen=True, eq=False)
class Folding:
    """By canonical names of layers ("text.layers.0.mlp.up_proj").

    Args:
        inputs: what each input channel is multiplied by.
        outputs: what each output channel is divided by.
        importance: the mean square of each input, after that.
        source: the sha256 of the calibration data.
    """

    inputs: Mapping[str, Floats]
    outputs: Mapping[str, Floats]
    importance: Mapping[str, Floats]
    source: str

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part in (self.inputs, self.outputs, self.importance):
            for name, values in part.items():
                digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()

    def applied(self, checkpoint: Checkpoint) -> Checkpoint:
        """The same checkpoint, its tensors scaled as they are read."""
        scaled = replace(checkpoint)
        tensors = {name: self._tensor(name, tensor) for name, tensor in checkpoint.tensors.items()}
        scaled.__dict__["tensors"] = tensors  # where the cached property keeps what it has read
        return scaled

    def _tensor(self, name: str, tensor: Tensor) -> Tensor:
        layer, _, kind = name.rpartition(".")
        inputs = self.inputs.get(layer) if kind == "weight" else None
        outputs = self.outputs.get(layer)
        if inputs is None and outputs is None:
            return tensor
        return ScaledTensor(tensor, inputs, outputs, self.importance.get(layer))


class ScaledTensor(Tensor):
    """A tensor whose rows are divided and whose columns are multiplied as they are read.

    Args:
        tensor: as it is stored; of one axis, the rows of a norm or a bias.
        inputs: factors of columns; None = 1.
        outputs: divisors of rows; None = 1.
        importance: what the squared error of a column counts where it is quantised.
    """

    def __init__(
        self, tensor: Tensor, inputs: Floats | None, outputs: Floats | None, importance: Floats | None
    ) -> None:
        def read(start: int, stop: int) -> Floats:
            rows = tensor.rows(start, stop)
            if inputs is not None:
                rows = rows * inputs
            if outputs is not None:
                divisors = outputs[start:stop]
                rows = rows / (divisors[:, None] if rows.ndim == 2 else divisors)
            return rows

        super().__init__(tensor.shape, read, bfloat16=False)
        self._importance = importance

    def quantised_rows(
        self, start: int, stop: int, scheme: Scheme
    ) -> tuple[Floats, tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        rows = self.rows(start, stop)
        return rows, quantise(rows, scheme, self._importance)
