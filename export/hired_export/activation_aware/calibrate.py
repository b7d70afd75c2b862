"""Calibration, a decoder layer at a time: sequences through the layers, and the factors of each layer's folds.

Held at once: one layer in float32, the sequences, and what a layer's products are given. The layers run unquantised.
Cost: the tower on some pictures, each layer once on all tokens, and a search on samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hired_edge import child
from hired_edge.errors import ExportError, InputError
from hired_edge.manifest import Method
from hired_export import prompt_files
from hired_export.activation_aware.folding import FOLDS, Fold, Folding
from hired_export.activation_aware.recording import run_layer
from hired_export.activation_aware.search import Inputs, factors
from hired_export.activation_aware.sequences import Sequences, read_calibration
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, ModelSpec, read_spec
from hired_export.fused import module_of
from hired_export.picture_rules import read_preprocessing
from hired_export.progress import step
from hired_export.quantisation import Scheme
from hired_export.references import References
from hired_export.sources import Schemes, Sources
from hired_export.vision_tower import open_checkpoint

if TYPE_CHECKING:
    from hired_export.exporter import ExportOptions

TOKENS = 4096
"""Of all calibration sequences."""
PLAIN = Schemes(decoder=None, lm_head=None, embedding="F32", dtype="float32")
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CalibrationJob:
    """What a calibration needs, small enough to be sent to another process.

    Args:
        checkpoint: a folder.
        vision_tower, chat_template: what it does not hold, as for the export.
        data: a folder with pictures and questions.jsonl.
        attention: which maps choose the visual tokens.
        scheme: how the decoder's matrices will be stored.
        tokens: that go through every layer.
    """

    checkpoint: Path
    data: Path
    attention: AttentionChoice
    scheme: Scheme
    tokens: int = TOKENS
    vision_tower: Path | None = None
    chat_template: Path | None = None
    progress: bool = False

    @classmethod
    def of(cls, checkpoint: Path, options: ExportOptions, scheme: Scheme) -> CalibrationJob:
        assert options.calibration is not None
        return cls(
            checkpoint,
            options.calibration,
            options.attention,
            scheme,
            options.calibration_tokens,
            options.vision_tower,
            options.chat_template,
            options.progress,
        )


def check_calibration(method: Method | None, data: Path | None, tokens: int) -> None:
    """Raises InputError for calibration data where none are used, none where they are needed, or too few tokens."""
    if data is None and method == "awq":
        raise InputError(
            "--quantisation awq without --calibration",
            expected="a folder with pictures and questions.jsonl, of the kind that will be asked",
            fix="pass --calibration FOLDER, or --quantisation hqq, which needs none",
        )
    if data is not None and method != "awq":
        raise InputError(
            "--calibration without --quantisation awq"
            if method is None
            else f"--calibration with --quantisation {method}",
            expected="--quantisation awq, the only method that looks at data",
            fix="pass --quantisation awq, or leave --calibration out",
        )
    if tokens < 1:
        raise InputError(f"--calibration-tokens {tokens}", expected="1 or more", fix="pass another number")
    if data is not None:
        read_calibration(data)


def calibrate_in_child(job: CalibrationJob) -> Folding:
    """`calibrate` in a process of its own.

    Raises:
        ExportError: the process died.
        CheckpointError, InputError, OSError: as `calibrate` raised it there.
    """
    died = ExportError(
        "the calibration's process died",
        expected="enough memory for one decoder layer or the vision tower in float32, whichever is larger",
        fix="close other programs and export again, or leave --quantisation awq out",
    )
    return child.call(calibrate, job, died=lambda status: died)


@torch.inference_mode()
def calibrate(job: CalibrationJob) -> Folding:
    """Runs the calibration.

    Raises:
        CheckpointError: a tensor is missing.
        InputError: calibration data that cannot be used, or a checkpoint that is in 4 bits already.
    """
    data = read_calibration(job.data)
    checkpoint = open_checkpoint(job.checkpoint, job.vision_tower)
    _refuse_packed(checkpoint)
    spec = read_spec(checkpoint, job.attention)
    references = References(checkpoint, spec, PLAIN)
    sources = Sources(checkpoint, spec)
    rules = read_preprocessing(checkpoint, spec.tiling)
    prompt = prompt_files.read(checkpoint, spec.config, job.chat_template)
    with step("calibration pictures", job.progress, job.tokens, unit=" tokens") as advance:
        made = Sequences(spec, rules, prompt, references, sources.embedding, sources.newline)
        sequences = made.make(data.questions, job.tokens, advance)
    found = _Found({}, {}, {})
    with step("calibration layers", job.progress, spec.decoder.layers, unit=" layers") as advance:
        for index in range(spec.decoder.layers):
            found.search(index, references, sequences, job.scheme, spec)
            advance(1)
    return Folding(found.inputs, found.outputs, found.importance, data.sha256)


@dataclass(frozen=True)
class _Found:
    """As in `Folding`."""

    inputs: dict[str, Floats]
    outputs: dict[str, Floats]
    importance: dict[str, Floats]

    def search(
        self, index: int, references: References, sequences: list[torch.Tensor], scheme: Scheme, spec: ModelSpec
    ) -> None:
        """One layer, whose outputs replace the sequences; it is held no longer than this."""
        layer, run = references.runner(index)
        names = [module_of(spec.text_type, fold.readers[0]) for fold in FOLDS]
        inputs = run_layer(layer, run, sequences, names)
        for fold, name in zip(FOLDS, names, strict=True):
            self._add(f"text.layers.{index}.", fold, references, inputs[name], scheme)

    def _add(self, prefix: str, fold: Fold, references: References, inputs: Inputs, scheme: Scheme) -> None:
        shape, heads = references.spec.decoder, None
        if fold.shared:
            heads = (shape.kv_heads, shape.heads // shape.kv_heads, shape.head_dim)
        factor = factors(inputs, [references.weight(prefix + name) for name in fold.readers], scheme, heads)
        for name in fold.readers:
            self.inputs[prefix + name] = factor
            self.importance[prefix + name] = inputs.square / factor**2
        once = factor if heads is None else factor.reshape(heads)[:, 0].reshape(-1)
        self.outputs[prefix + fold.front] = once


def _refuse_packed(checkpoint: Checkpoint) -> None:
    packed = next((name for name, tensor in checkpoint.tensors.items() if tensor.packed is not None), None)
    if packed is not None:
        raise InputError(
            f"--quantisation awq for a checkpoint whose {packed} is in 4 bits already",
            expected="weights of a float type",
            fix="leave --quantisation and --calibration out: its 4 bits are kept as they are",
        )
