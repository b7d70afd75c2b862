"""Runs decoder layers on calibration sequences, one after the other, and keeps what their products are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from hired_export.activation_aware.search import Inputs

SAMPLE = 512
"""Tokens of a sample, evenly spaced over all sequences."""


class _Recorder:
    """Sums of one product's inputs, and a sample of them."""

    def __init__(self, tokens: int) -> None:
        self._stride, self._seen = max(1, tokens // SAMPLE), 0
        self._magnitude, self._square = torch.zeros(()), torch.zeros(())
        self._sample: list[torch.Tensor] = []

    def __call__(self, module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        x = arguments[0].reshape(-1, arguments[0].shape[-1])
        self._magnitude = self._magnitude + x.abs().sum(0, dtype=torch.float64)
        self._square = self._square + x.square().sum(0, dtype=torch.float64)
        self._sample.append(x[-self._seen % self._stride :: self._stride].clone())
        self._seen += len(x)

    @property
    def inputs(self) -> Inputs:
        sums = (self._magnitude / self._seen, self._square / self._seen)
        magnitude, square = (each.to(torch.float32).numpy() for each in sums)
        return Inputs(magnitude, square, torch.cat(self._sample).numpy())


def run_layer(
    layer: nn.Module, run: Callable[[torch.Tensor], torch.Tensor], sequences: list[torch.Tensor], names: Sequence[str]
) -> dict[str, Inputs]:
    """Replaces each sequence by the layer's output, and says what the named products were given.

    Args:
        layer: whose modules are named.
        run: gives the layer's output (1, S, D) for its input.
        sequences: (1, S, D) each.
        names: of products in the layer.
    """
    tokens = sum(sequence.shape[1] for sequence in sequences)
    recorders = {name: _Recorder(tokens) for name in names}
    handles = [layer.get_submodule(name).register_forward_pre_hook(each) for name, each in recorders.items()]
    try:
        for i, sequence in enumerate(sequences):
            sequences[i] = run(sequence)
    finally:
        for handle in handles:
            handle.remove()
    return {name: recorder.inputs for name, recorder in recorders.items()}
