"""One matrix of a 7B model's width, quantised in every way: its error and how fast it is.

Weights are normal, or heavy-tailed (Student's t with 4 degrees of freedom). Inputs are normal in each channel, whose
sizes spread over three orders of magnitude (log-normal, sigma 1.2), as some channels of a trained model stand out: what
awq is for. Calibration and the error of the outputs use different inputs. Channels are independent here, which those of
a trained model are not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hired_export.activation_aware.search import Inputs, factors
from hired_export.quantisation import METHODS, Scheme, dequantise, quantise
from hired_export.quantisation.clipping import CANDIDATES, HIGHEST, LOWEST

WIDTH, TOKENS, SPAN, RUNS = 4096, 512, 128, 3
NORM = 0.7
"""The exponent that HQQ recommends for its zero points."""
Floats = NDArray[np.float32]
WEIGHTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "heavy-tailed": lambda random, shape: random.standard_t(4, shape),
}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        weights: how they are distributed.
        block, method: how they are stored.
        weight_error: rms(w' - w) / rms(w).
        output_error: the same of the outputs.
        megabytes_per_second: of fp16 weights, with all threads; the median of RUNS. None: not measured.
    """

    weights: str
    block: int
    method: str
    weight_error: float
    output_error: float
    megabytes_per_second: float | None


def measure(blocks: tuple[int, ...], on_row: Callable[[int], None]) -> Iterator[Row]:
    """Every distribution, block and method; methods run in turns, so that none is alone with a busy machine."""
    random = np.random.default_rng(0)
    for name, draw in WEIGHTS.items():
        weight = (0.02 * draw(random, (WIDTH, WIDTH))).astype(np.float32)
        sizes = np.exp(1.2 * random.standard_normal(WIDTH)).astype(np.float32)
        seen, unseen = (random.standard_normal((TOKENS, WIDTH), np.float32) * sizes for _ in range(2))
        inputs = Inputs(np.abs(seen).mean(axis=0), np.square(seen).mean(axis=0), seen)
        for block in blocks:
            schemes = [Scheme(4, block, method) for method in METHODS]
            factor = {scheme: _factor(inputs, weight, scheme) for scheme in schemes}
            times: dict[Scheme, list[float]] = {scheme: [] for scheme in schemes}
            restored = {}
            for _ in range(RUNS):
                for scheme in schemes:
                    start = time.perf_counter()
                    stored = _quantised(weight, scheme, factor[scheme], inputs)
                    times[scheme].append(time.perf_counter() - start)
                    restored[scheme] = dequantise(*stored, scheme, WIDTH) / factor[scheme]
            for scheme in schemes:
                speed = 2 * weight.size / 1e6 / float(np.median(times[scheme]))
                yield Row(name, block, scheme.method, *_errors(weight, restored[scheme], unseen), speed)
            some = weight[:SPAN]
            yield Row(name, block, f"p = {NORM}", *_errors(some, _least_norm(some, block), unseen), None)
            on_row(1)


def _errors(weight: Floats, restored: Floats, inputs: Floats) -> tuple[float, float]:
    change = restored - weight
    return _rms(change) / _rms(weight), _rms(inputs @ change.T) / _rms(inputs @ weight.T)


def _least_norm(weight: Floats, block: int) -> Floats:
    """The weights back from the scales, among `hqq`'s candidates, with the smallest sum(abs(w' - w)**NORM)."""
    grouped = weight.reshape(len(weight), -1, block)
    plain = np.abs(grouped).max(axis=2, keepdims=True) / HIGHEST
    tried = [np.clip(np.rint(grouped / (plain * r)), LOWEST, HIGHEST) * (plain * r) for r in CANDIDATES]
    errors = np.stack([(np.abs(each - grouped) ** NORM).sum(axis=2) for each in tried])
    best = np.take_along_axis(np.stack(tried), errors.argmin(axis=0)[None, ..., None], axis=0)[0]
    return best.reshape(weight.shape)


def _factor(inputs: Inputs, weight: Floats, scheme: Scheme) -> Floats:
    return factors(inputs, [weight], scheme, None) if scheme.method == "awq" else np.ones(WIDTH, np.float32)


def _quantised(weight: Floats, scheme: Scheme, factor: Floats, inputs: Inputs) -> tuple[NDArray[np.uint8], Floats]:
    """As an export does it: spans of rows, in threads."""
    importance = inputs.square / factor**2 if scheme.method == "awq" else None

    def span(start: int) -> tuple[NDArray[np.uint8], Floats]:
        return quantise(weight[start : start + SPAN] * factor, scheme, importance)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        packed, scales = zip(*pool.map(span, range(0, WIDTH, SPAN)), strict=True)
    return np.concatenate(packed), np.concatenate(scales)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
