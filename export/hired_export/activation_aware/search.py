"""Factors of a fold: those, of a small grid, with which the quantised products come nearest to the true ones.

The factor of a channel is a power of its mean magnitude, the same power for all (AWQ, equation 5); 0 leaves everything
as it is and is among the candidates. What is compared are outputs on calibration inputs, of some output channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hired_export.quantisation import Scheme, dequantise, quantise

Floats = NDArray[np.float32]

POWERS = tuple(step / 10 for step in range(11))
ROWS = 512
"""Output channels of a product that are compared, evenly spaced."""
_LEAST = np.float32(1e-4)
"""Of a factor, before they are brought around 1."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a product was given in calibration.

    Args:
        magnitude: (inputs), mean absolute value.
        square: (inputs), mean square.
        sample: (tokens, inputs), some of them.
    """

    magnitude: Floats
    square: Floats
    sample: Floats


def factors(inputs: Inputs, weights: Sequence[Floats], scheme: Scheme, heads: tuple[int, int, int] | None) -> Floats:
    """The factor of each input channel, (inputs).

    Args:
        inputs: of the products.
        weights: (outputs, inputs) each.
        scheme: how they will be stored.
        heads: (kv heads, query heads of each, head width) where channels of the query heads of a kv head share a
            factor; None = each has its own.
    """
    magnitude = inputs.magnitude
    if heads is not None:
        shared = magnitude.reshape(heads).mean(axis=1, keepdims=True)
        magnitude = np.broadcast_to(shared, heads).reshape(-1)
    compared = [weight[:: max(1, len(weight) // ROWS)] for weight in weights]
    candidates = [_candidate(magnitude, power) for power in POWERS]

    def error(factor: Floats) -> float:
        return sum(_error(weight, factor, inputs, scheme) for weight in compared)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        errors = list(pool.map(error, candidates))
    return candidates[int(np.argmin(errors))]


def _candidate(magnitude: Floats, power: float) -> Floats:
    raised = np.maximum(magnitude.astype(np.float64) ** power, _LEAST)
    return (raised / np.sqrt(raised.max() * raised.min())).astype(np.float32)


def _error(weight: Floats, factor: Floats, inputs: Inputs, scheme: Scheme) -> float:
    """sum over tokens and outputs of (x (w' - w))**2."""
    importance = inputs.square / factor**2
    stored = quantise(weight * factor, scheme, importance)
    change = dequantise(*stored, scheme, weight.shape[1]) / factor - weight
    return float(np.square(inputs.sample @ change.T, dtype=np.float64).sum())
