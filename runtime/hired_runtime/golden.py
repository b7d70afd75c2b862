"""Replays a bundle's golden inputs on this machine's engine and compares: does it compute what the exporter saw?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hired_edge.budget import Budget
from hired_edge.bundle import Bundle
from hired_edge.engine_check import rebuild_command
from hired_edge.errors import BundleError
from hired_edge.limits import MULTIPLE, Limits, derive_limits
from hired_edge.manifest import GoldenCase, Manifest
from hired_edge.tensorfile import TensorFile
from hired_runtime.backend import Backend

Tensors: TypeAlias = "dict[str, NDArray]"
TOLERANCES = {"float32": 2e-4, "float16": 2e-2}
ROUNDED_TOLERANCE = 0.25
"""Of the largest golden value, by the type of activations: another machine's kernels sum in another order, and where
activations are rounded to integers, a last bit may fall the other way."""


@dataclass(frozen=True)
class Replay:
    """The largest absolute error of one piece, and what was allowed."""

    piece: str
    error: float
    tolerance: float


def limits(manifest: Manifest, slots: int = MULTIPLE) -> Limits:
    """Small limits that the golden inputs fit: one row, no visual tokens, a cache of `slots`."""
    text = 32
    return derive_limits(manifest.vision.tiling, [Budget(absolute=0)], text_tokens=text, new_tokens=slots - text)


def replay(bundle: Bundle, backend: Backend) -> Iterator[Replay]:
    """Runs every golden case.

    Raises:
        BundleError: an output differs by more than the tolerance.
    """
    runs = {"vision": partial(_vision, limits(bundle.manifest).tiles), "language": _language}
    for case in bundle.manifest.golden:
        inputs, outputs = _read(bundle, case.inputs), _read(bundle, case.outputs)
        got = runs[case.piece](backend, inputs, outputs)
        for name, expected in outputs.items():
            yield _compare(bundle, backend, case, name, got[name], expected)


def _read(bundle: Bundle, name: str) -> Tensors:
    file = TensorFile(bundle.path(name), BundleError)
    return {tensor: file.read(tensor).astype(np.float32) for tensor in file.names}


def _vision(most: int, backend: Backend, inputs: Tensors, outputs: Tensors) -> Tensors:
    """At most so many tiles at once: a family without a grid has engines for one."""
    pixels, pieces = inputs["pixel_values"], []
    for start in range(0, len(pixels), most):
        maps = backend.vision.encode(pixels[start : start + most])
        tiles, patches = maps.allocation.shape
        features = backend.vision.gather(np.arange(tiles * patches)).reshape(tiles, patches, -1)
        keys = () if maps.keys is None else (maps.keys.copy(),)
        pieces.append((features, maps.allocation.copy(), maps.selection.copy(), *keys))
    names = ("image_features", "allocation_attention", "selection_attention", "selection_keys")[: len(pieces[0])]
    return dict(zip(names, map(np.concatenate, zip(*pieces, strict=True)), strict=True))


def _language(backend: Backend, inputs: Tensors, outputs: Tensors) -> Tensors:
    """A prompt, then one embedding a step: a row of golden logits for each."""
    embeds = inputs["inputs_embeds"]
    tokens = embeds.shape[1] - (len(outputs["logits"]) - 1)
    cuts = [0, *range(tokens, embeds.shape[1] + 1)]
    logits = [
        backend.language.step(embeds[:, start:stop], np.array([start]), np.array([stop - start - 1])).copy()
        for start, stop in pairwise(cuts)
    ]
    backend.language.reset()
    return {"logits": np.concatenate(logits)}


def _compare(bundle: Bundle, backend: Backend, case: GoldenCase, name: str, got: NDArray, expected: NDArray) -> Replay:
    if got.shape != expected.shape:
        raise BundleError(
            f"{case.piece} {name} has shape {got.shape}",
            expected=f"{expected.shape}, as in {case.outputs}",
            fix="export the bundle again",
        )
    tolerance = _tolerance(bundle.manifest, case) * float(np.abs(expected).max())
    error = float(np.abs(got - expected).max())
    if not error <= tolerance:
        raise BundleError(
            f"{case.piece} {name} differs from its golden output by {error:.2g}",
            expected=f"at most {tolerance:.2g}",
            fix=_mend(bundle, backend),
        )
    return Replay(f"{case.piece} {name}", error, tolerance)


def _mend(bundle: Bundle, backend: Backend) -> str:
    library = backend.name.partition(" ")[0]
    if library == "onnxruntime":
        return "install another version of onnxruntime, or export the bundle again on this machine"
    return f"build its engines again with this {library}: {rebuild_command(bundle.root)}"


def _tolerance(manifest: Manifest, case: GoldenCase) -> float:
    """Only the CPU's graphs round activations to int8, where their weights are quantised."""
    stored = manifest.quantisation
    rounded = stored.vision == "int8" if case.piece == "vision" else manifest.target == "cpu" and stored.bits < 16
    if rounded:
        return ROUNDED_TOLERANCE
    return TOLERANCES[manifest.text.activation_dtype]
