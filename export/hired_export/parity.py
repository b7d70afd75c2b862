"""After every export: the bundle's graphs in ONNX Runtime against transformers, on seeded inputs, piece by piece.

Pieces: the vision encoder; the first, middle and last decoder layer; norm and LM head; and, where its float32 weights
fit WHOLE_MODEL_BYTES, the whole text model. So a check costs about as much at 7 billion parameters as here. What it
does not show: that quantised weights answer well (their error is recorded, not judged), and long sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hired_edge import child
from hired_edge.errors import ExportError
from hired_edge.manifest import GoldenCase, Graph, ParityCheck
from hired_edge.tensorfile import write_tensors
from hired_export import vision_check
from hired_export.activation_aware.folding import Folding
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, ModelSpec, read_spec
from hired_export.partial import StoppedError
from hired_export.progress import step
from hired_export.references import References
from hired_export.shipped import DECODE_STEPS, SEED, TOKENS, Language, Seeded
from hired_export.sources import Schemes

WHOLE_MODEL_BYTES = 2 * 2**30
GOLDEN_BYTES = 6 * 2**30
PIECE_TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
WHOLE_TOLERANCE = {"float32": 1e-3, "float16": 3e-2}
ROUNDED_TOLERANCE = 0.25
"""Of the largest reference value, by the graph's float type: one piece; the whole model; the whole model as shipped
where it is quantised for the CPU.

MatMulNBits as shipped rounds activations to int8, which moves logits by some per cent a model. The first two are
compared without that rounding, so a wrong weight or scale cannot hide behind it; the last one shows a broken kernel and
no more.
"""


@dataclass(frozen=True)
class ParityJob:
    """What a check needs, small enough to be sent to another process."""

    checkpoint: Path
    bundle: Path
    attention: AttentionChoice
    stored: Schemes
    vision: Graph
    language: Graph
    """The one with the shortest cache: others differ from it in nothing else."""
    progress: bool = False
    vision_tower: Path | None = None
    """The tower's folder, where the checkpoint does not hold it."""
    folding: Folding | None = None
    """How the bundle's weights were scaled: the reference's are scaled alike."""

    def path(self, graph: Graph) -> Path:
        return self.bundle / graph.file


@dataclass(frozen=True)
class Comparison:
    """One output of one piece. Passed where the largest error is at most `tolerance`."""

    piece: str
    max_abs_error: float
    max_abs_reference: float
    tolerance: float

    @property
    def excess(self) -> float:
        """The error in tolerances; infinite where it is no number."""
        ratio = self.max_abs_error / self.tolerance if self.tolerance else math.inf
        return math.inf if math.isnan(ratio) else ratio


@dataclass(frozen=True)
class CheckOutcome:
    """Every comparison made, passed or not, and the golden files written."""

    comparisons: tuple[Comparison, ...]
    golden: tuple[GoldenCase, ...]

    def raise_if_failed(self) -> None:
        """Raises ExportError naming the worst piece."""
        # "not <=" rather than ">": a NaN must fail.
        failed = [c for c in self.comparisons if not c.max_abs_error <= c.tolerance]
        if failed:
            worst = max(failed, key=lambda c: c.excess)
            raise ExportError(
                f"parity check failed: {worst.piece} differs by {worst.max_abs_error:.2g}",
                expected=f"at most {worst.tolerance:.2g} from transformers (largest: {worst.max_abs_reference:.2g})",
                fix="report this with the checkpoint's config.json; no bundle was written",
            )

    @property
    def checks(self) -> tuple[ParityCheck, ...]:
        reference = "transformers, float32, weights rounded as in the bundle"
        return tuple(
            ParityCheck(c.piece, reference, c.max_abs_error, c.max_abs_reference, c.tolerance) for c in self.comparisons
        )


def check_in_child(job: ParityJob) -> CheckOutcome:
    """`check` in a process of its own.

    Raises:
        StoppedError: the process died.
        CheckpointError, OSError: as `check` raised it there.
    """
    died = StoppedError(
        "the parity check's process died",
        expected="enough memory for the language model as it is stored, or for one layer of it in float32",
        fix="close other programs and export again, which goes on from here; or report what is printed above",
    )
    return child.call(check, job, died=lambda status: died)


@torch.inference_mode()
def check(job: ParityJob) -> CheckOutcome:
    """Runs every comparison and writes `golden/`. Memory: one piece at a time."""
    checkpoint = Checkpoint(job.checkpoint, job.vision_tower)
    if job.folding is not None:
        checkpoint = job.folding.applied(checkpoint)
    spec = read_spec(checkpoint, job.attention)
    references = References(checkpoint, spec, job.stored)
    golden = job.bundle / "golden"
    golden.mkdir()
    layers = _checked_layers(spec)
    with step("parity check", job.progress, len(layers) + 3, unit=" pieces") as advance:
        comparisons, case = _check_vision(job, spec, references)
        advance(1)
        language = Language(job.path(job.language), job.language.max_sequence_length, spec, job.stored.dtype)
        for comparison in _check_layers(language, layers, spec, references):
            comparisons.append(comparison)
            advance(1)
        found, cases = _check_whole(job, language, spec, references)
        advance(1)
    return CheckOutcome((*comparisons, *found), (case, *cases))


def _compare(piece: str, got: NDArray, expected: NDArray, tolerance: float) -> Comparison:
    assert got.shape == expected.shape, f"{piece}: {got.shape} against {expected.shape}"
    largest = float(np.abs(expected).max())
    got = got.astype(np.float32)
    # NaN anywhere makes the error NaN, which no tolerance admits.
    return Comparison(piece, float(np.abs(got - expected).max()), largest, tolerance * largest)


def _check_vision(job: ParityJob, spec: ModelSpec, references: References) -> tuple[list[Comparison], GoldenCase]:
    pixels = Seeded(spec).pixels
    expected = references.vision(torch.from_numpy(pixels))
    path, given = job.path(job.vision), pixels.astype(job.stored.dtype)
    got = vision_check.outputs(path, given)
    runs = [("", got, PIECE_TOLERANCE[job.stored.dtype])]
    if job.stored.vision is not None:
        runs = [
            ("", vision_check.outputs(path, given, as_shipped=False), PIECE_TOLERANCE[job.stored.dtype]),
            (", activations in int8", got, vision_check.ROUNDED_TOLERANCE),
        ]
    found = [
        _compare(f"vision.{name}{how}", values[name], reference.numpy(), tolerance)
        for how, values, tolerance in runs
        for name, reference in zip(got, expected, strict=True)
    ]
    write_tensors(job.bundle / "golden/vision.inputs.safetensors", {"pixel_values": pixels})
    write_tensors(job.bundle / "golden/vision.outputs.safetensors", got)
    case = GoldenCase(
        "vision",
        "golden/vision.inputs.safetensors",
        "golden/vision.outputs.safetensors",
        f"two tiles of seeded noise (PCG64, seed {SEED}), run by ONNX Runtime after the parity check",
    )
    return found, case


def _checked_layers(spec: ModelSpec) -> list[int]:
    last = spec.decoder.layers - 1
    return sorted({0, last // 2, last})


def _check_layers(
    language: Language, layers: list[int], spec: ModelSpec, references: References
) -> Iterator[Comparison]:
    hidden = Seeded(spec).embeds[:, :TOKENS]
    tolerance = PIECE_TOLERANCE[language.dtype]
    last = spec.decoder.layers - 1
    for index in layers:
        source = f"hidden_states.{index}" if index else "inputs_embeds"
        got = language.cut(source, f"hidden_states.{index + 1}", hidden)
        expected = references.layer(index, torch.from_numpy(hidden)).numpy()
        yield _compare(f"language.layers.{index}", got, expected, tolerance)
    got = language.cut(f"hidden_states.{last + 1}", "logits", hidden)
    expected = references.head(torch.from_numpy(hidden[:, -1])).numpy()
    yield _compare("language.lm_head", got, expected, tolerance)


def _check_whole(
    job: ParityJob, language: Language, spec: ModelSpec, references: References
) -> tuple[list[Comparison], list[GoldenCase]]:
    """The text model as shipped: compared where its reference fits, its golden outputs written where it loads."""
    inputs = Seeded(spec)
    if sum((job.bundle / name).stat().st_size for name in job.language.data) > GOLDEN_BYTES:
        return [], []
    logits = language.generate(inputs)
    golden = [_golden_language(job.bundle, inputs, logits)]
    if _text_bytes(spec) > WHOLE_MODEL_BYTES:
        return [], golden
    expected = references.whole(torch.from_numpy(inputs.embeds)).numpy()[0, TOKENS - 1 :]
    tolerance = WHOLE_TOLERANCE[job.stored.dtype]
    if job.stored.decoder is None or job.stored.dtype != "float32":
        return [_compare("language", logits, expected, tolerance)], golden
    unrounded = language.generate(inputs, as_shipped=False)
    return [
        _compare("language", unrounded, expected, tolerance),
        _compare("language, activations in int8", logits, expected, ROUNDED_TOLERANCE),
    ], golden


def _text_bytes(spec: ModelSpec) -> int:
    shape = spec.decoder
    width, queries, keys = shape.hidden_size, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = width * (2 * queries + 2 * keys + 3 * shape.intermediate_size)
    return 4 * (shape.layers * layer + width * shape.vocab_size)


def _golden_language(root: Path, inputs: Seeded, logits: NDArray) -> GoldenCase:
    names = ("golden/language.inputs.safetensors", "golden/language.outputs.safetensors")
    write_tensors(root / names[0], {"inputs_embeds": inputs.embeds})
    write_tensors(root / names[1], {"logits": logits})
    text = (
        f"a prompt of {TOKENS} seeded embeddings, then {DECODE_STEPS} single ones (PCG64, seed {SEED}): "
        "logits after each, run by ONNX Runtime after the parity check"
    )
    return GoldenCase("language", *names, text)
