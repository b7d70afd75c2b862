"""Checkpoint -> bundle: everything in `OUT.partial/`, checked, then renamed to OUT in one step.

An export that fails leaves neither OUT nor OUT.partial behind. One that was stopped goes on where it was: see
`partial.py`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir
import torch

from hired_edge import __version__
from hired_edge.budget import Budget, parse_budget
from hired_edge.bundle import write_manifest
from hired_edge.errors import InputError
from hired_edge.limits import Limits, cache_lengths, check_positions, derive_limits
from hired_edge.manifest import (
    FORMAT_VERSION,
    Manifest,
    Method,
    Precision,
    Quantisation,
    Target,
    TextModel,
    VisionModel,
)
from hired_edge.plan import NO_PLAN
from hired_export import prompt_files
from hired_export.activation_aware.calibrate import TOKENS, CalibrationJob, calibrate_in_child, check_calibration
from hired_export.activation_aware.folding import Folding
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, ModelSpec, read_spec
from hired_export.graphs import language_graph, vision_graph
from hired_export.identity import identity
from hired_export.lowering import vision_int8
from hired_export.operators import check_operators
from hired_export.packed.report import own_block, summary
from hired_export.parity import CheckOutcome, ParityJob, check_in_child
from hired_export.partial import refuse_existing, resumable_folder
from hired_export.picture_rules import read_preprocessing
from hired_export.progress import step
from hired_export.sources import Schemes, Sources
from hired_export.targets import EMBEDDING_TYPES, TARGETS, TargetFacts, check_blocks, schemes
from hired_export.vision_tower import open_checkpoint
from hired_export.writing import EMBEDDING, Writing, at_length


@dataclass(frozen=True)
class ExportOptions:
    """What a user chooses. Token numbers are maxima of a request; None = the target's own choice.

    `block_size` is for int4 (None: of a checkpoint that is in 4 bits already, its own); `lm_head_parts` the number of
    products that the LM head is split into; `vision_tower` the folder of a tower that the checkpoint does not hold;
    `chat_template` a file in place of the checkpoint's own; `quantisation` how int4's scales are chosen (None: "hqq"),
    "awq" with `calibration`, a folder with pictures and questions.jsonl; `embedding` None = fp32 beside fp32 weights,
    else fp16.
    """

    target: Target = "cpu"
    precision: Precision | None = None
    visual_tokens: tuple[str, ...] = ("20%",)
    max_text_tokens: int = 512
    max_new_tokens: int = 256
    max_batch: int = 1
    max_images: int = 1
    attention: AttentionChoice = field(default_factory=AttentionChoice)
    block_size: int | None = None
    lm_head_parts: int = 1
    vision_tower: Path | None = None
    chat_template: Path | None = None
    quantisation: Method | None = None
    calibration: Path | None = None
    calibration_tokens: int = TOKENS
    embedding: str | None = None
    vision_precision: str | None = None
    progress: bool = True


def export(
    checkpoint_path: Path,
    out: Path,
    options: ExportOptions,
    *,
    check: Callable[[ParityJob], CheckOutcome] = check_in_child,
    calibrate: Callable[[CalibrationJob], Folding] = calibrate_in_child,
    on_stage: Callable[[str, float], None] = lambda name, seconds: None,
) -> Manifest:
    """Writes the bundle `out` and returns its manifest.

    Args:
        checkpoint_path: a folder in the Hub's layout or an original one.
        out: must not exist yet.
        options: what to export.
        check, calibrate: by default in a child process, so that their memory is its own.
        on_stage: is told of every stage that has ended, and its seconds.

    Raises:
        CheckpointError, InputError, LimitError: before anything is written.
        ExportError: no room on the disk, or the parity check failed.
    """
    if options.target not in TARGETS:
        raise InputError(f"--target {options.target}", expected=" or ".join(TARGETS), fix="choose one of them")
    target = TARGETS[options.target]
    if options.attention.keys and options.target != "cpu":
        raise InputError(
            f"--with-keys for --target {options.target}",
            expected="--target cpu: keys are for comparing policies",
            fix="leave --with-keys out, or choose that target",
        )
    checkpoint = open_checkpoint(checkpoint_path, options.vision_tower)
    spec = read_spec(checkpoint, options.attention)
    precision, stored = schemes(
        options.target,
        options.precision,
        _block_size(checkpoint, options),
        options.quantisation,
        options.embedding,
        options.vision_precision,
    )
    check_calibration(options.quantisation, options.calibration, options.calibration_tokens)
    limits = _limits(spec, options)
    spec = _with_head(_with_window(spec, limits), options.lm_head_parts)
    check_blocks(spec.decoder, stored)
    lengths = cache_lengths(limits, spec.tiling) if target.static else ()
    prompt = prompt_files.read(checkpoint, spec.config, options.chat_template)
    preprocess = read_preprocessing(checkpoint, spec.tiling)
    sources, about, folding = Sources(checkpoint, spec), identity(checkpoint_path, options), None
    if options.calibration is not None:
        assert stored.decoder is not None
        refuse_existing(out)  # before what takes minutes
        with _timed("calibration", on_stage):
            folding = calibrate(CalibrationJob.of(checkpoint_path, options, stored.decoder))
        sources, about = Sources(folding.applied(checkpoint), spec), about + folding.sha256
    with resumable_folder(out, sources.output_bytes(stored), about) as (partial, journal):
        with _timed("graphs", on_stage), step("graphs", options.progress):
            language_model, vision_model = _graphs(spec, stored, target)
            _check_operators(language_model, vision_model, lengths, target)
        with _timed("weights", on_stage), step("weights", options.progress, sources.input_bytes()) as on_bytes:
            writing = Writing(partial, sources, stored, journal, on_bytes)
            languages = writing.language(language_model, spec, lengths)
            vision = writing.vision(vision_model)
            writing.embedding()
            errors = writing.errors
        line = summary(sources.language, {error.name: error.value for error in errors})
        if line is not None and options.progress:
            print(line, file=sys.stderr)
        prompt_names = prompt_files.write(prompt, partial)
        job = ParityJob(
            checkpoint_path,
            partial,
            options.attention,
            stored,
            vision,
            languages[0],
            options.progress,
            options.vision_tower,
            folding,
        )
        with _timed("parity check", on_stage):
            outcome = check(job)
        outcome.raise_if_failed()
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            producer=f"hired-edge {__version__}",
            family=spec.family,
            checkpoint=checkpoint_path.resolve().name,
            target=options.target,
            text=_text_model(spec, target),
            vision=VisionModel(
                model_type=spec.config.vision_config.model_type,
                tiling=spec.tiling,
                preprocess=preprocess,
                layers=spec.vision_layers,
                allocation_layer=spec.vision.allocation_layer,
                selection_layer=spec.vision.selection_layer,
                feature_layer=spec.vision.feature_layer,
                heads=options.attention.heads,
                keys=spec.vision.hidden_size if spec.vision.keys else None,
                newline=spec.facts.newline,
            ),
            quantisation=Quantisation(
                precision=precision,
                bits=stored.decoder.bits if stored.decoder else stored.bits,
                block_size=stored.decoder.block_size if stored.decoder else None,
                lm_head_bits=stored.lm_head.bits if stored.lm_head else stored.bits,
                embedding_dtype=EMBEDDING_TYPES[stored.embedding],
                method=stored.decoder.method if stored.decoder else "rtn",
                calibration=folding.source if folding is not None else None,
                vision="float" if stored.vision is None else "int8",
            ),
            limits=limits,
            vision_graph=vision,
            language_graphs=languages,
            embedding=EMBEDDING,
            prompt=prompt_names,
            image_token=prompt.image_token,
            stop_token_ids=prompt.stop_token_ids,
            parity=outcome.checks,
            golden=outcome.golden,
            quantisation_errors={error.name: error.value for error in errors},
            files={},
            memory=NO_PLAN,
            digest="",
        )
        return write_manifest(partial, manifest, known=writing.records)  # which reads back and checks what it writes


def _block_size(checkpoint: Checkpoint, options: ExportOptions) -> int | None:
    """What was chosen; or what keeps the checkpoint's own 4 bits; None = the target's choice."""
    if options.block_size is not None or options.precision != "int4":
        return options.block_size
    return own_block(checkpoint.tensors, TARGETS[options.target].block_sizes)


def _limits(spec: ModelSpec, options: ExportOptions) -> Limits:
    budgets: list[Budget] = [parse_budget(text) for text in options.visual_tokens]
    limits = derive_limits(
        spec.tiling,
        budgets,
        text_tokens=options.max_text_tokens,
        new_tokens=options.max_new_tokens,
        batch=options.max_batch,
        images=options.max_images,
    )
    return check_positions(limits, spec.decoder.positions, "--max-images")


def _with_window(spec: ModelSpec, limits: Limits) -> ModelSpec:
    """A window that no sequence of this bundle can outgrow is no window."""
    window = spec.decoder.sliding_window
    if window is None or window < limits.max_sequence_length:
        return spec
    return replace(spec, decoder=replace(spec.decoder, sliding_window=None))


def _with_head(spec: ModelSpec, parts: int) -> ModelSpec:
    vocabulary = spec.decoder.vocab_size
    if not 1 <= parts <= vocabulary:
        raise InputError(
            f"--lm-head-parts {parts}",
            expected=f"1 to {vocabulary}, the vocabulary",
            fix="choose 1, or 4 for JetPack 6",
        )
    return replace(spec, decoder=replace(spec.decoder, head_parts=parts))


def _text_model(spec: ModelSpec, target: TargetFacts) -> TextModel:
    decoder = spec.decoder
    return TextModel(
        model_type=spec.text_type,
        layers=decoder.layers,
        heads=decoder.heads,
        kv_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        hidden_size=decoder.hidden_size,
        vocab_size=decoder.vocab_size,
        sliding_window=decoder.sliding_window,
        positions=decoder.positions,
        activation_dtype=target.dtype,
        cache_dtype=target.dtype,
        cache=target.cache,
    )


def _graphs(spec: ModelSpec, stored: Schemes, target: TargetFacts) -> tuple[ir.Model, ir.Model]:
    """The target's language and vision graphs, without weights."""
    dtype = getattr(torch, target.dtype)
    language = language_graph(spec.decoder, dtype)
    target.quantise(language, stored.of)
    target.lower(language, sliding_window=spec.decoder.sliding_window)
    return language, lowered_vision(spec, stored, target)


def lowered_vision(spec: ModelSpec, stored: Schemes, target: TargetFacts) -> ir.Model:
    """The target's vision graph, without weights."""
    vision = vision_graph(spec.vision, getattr(torch, target.dtype))
    target.lower(vision)
    if stored.vision is not None:
        vision_int8.lower(vision, spec.vision)
    return vision


@contextlib.contextmanager
def _timed(stage: str, on_stage: Callable[[str, float], None]) -> Iterator[None]:
    start = time.monotonic()
    yield
    on_stage(stage, time.monotonic() - start)


def _check_operators(language: ir.Model, vision: ir.Model, lengths: tuple[int, ...], target: TargetFacts) -> None:
    """Before any weight is read: a graph that a library refuses is refused in the first minute."""
    if target.operators is not None:
        for graph in (vision, *(at_length(language, length) for length in lengths)):
            check_operators(ir.to_proto(graph), target.operators)
