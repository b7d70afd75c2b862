"""Checkpoint -> bundle: everything in `OUT.partial/`, checked, then renamed to OUT in one step.

An export that fails, for whatever reason, leaves neither OUT nor OUT.partial behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
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
    Precision,
    Quantisation,
    Target,
    TextModel,
    VisionModel,
)
from hired_edge.plan import NO_PLAN
from hired_export import prompt_files
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, ModelSpec, read_preprocessing, read_spec
from hired_export.graphs import language_graph, vision_graph
from hired_export.operators import check_operators
from hired_export.parity import CheckOutcome, ParityJob, check_in_child
from hired_export.partial import partial_folder
from hired_export.progress import step
from hired_export.sources import Schemes, Sources
from hired_export.targets import TARGETS, TargetFacts, schemes
from hired_export.writing import EMBEDDING, write_embedding, write_language, write_vision


@dataclass(frozen=True)
class ExportOptions:
    """What a user chooses. Token numbers are maxima of a request; None = the target's own choice.

    `block_size` is for int4; `lm_head_parts` the number of products that the LM head is split into.
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
    progress: bool = True


def export(
    checkpoint_path: Path,
    out: Path,
    options: ExportOptions,
    *,
    check: Callable[[ParityJob], CheckOutcome] = check_in_child,
) -> Manifest:
    """Writes the bundle `out` and returns its manifest.

    Args:
        checkpoint_path: a folder in Hub layout.
        out: must not exist yet.
        options: what to export.
        check: runs the parity check; the default is a child process, so that its memory is its own.

    Raises:
        CheckpointError, InputError, LimitError: before anything is written.
        ExportError: no room on the disk, or the parity check failed.
    """
    if options.target not in TARGETS:
        raise InputError(f"--target {options.target}", expected=" or ".join(TARGETS), fix="choose one of them")
    checkpoint = Checkpoint(checkpoint_path)
    target = TARGETS[options.target]
    precision, stored = schemes(options.target, options.precision, options.block_size)
    spec = read_spec(checkpoint, options.attention)
    limits = _limits(spec, options)
    spec = _with_head(_with_window(spec, limits), options.lm_head_parts)
    _check_blocks(spec, stored)
    lengths = cache_lengths(limits, spec.tiling) if target.static else ()
    prompt = prompt_files.read(checkpoint, spec.config)
    preprocess = read_preprocessing(checkpoint, spec.tiling)
    sources = Sources(checkpoint, spec)
    with partial_folder(out, sources.output_bytes(stored)) as partial:
        with step("graphs", options.progress):
            language_model, vision_model = _graphs(spec, stored, target)
        with step("weights", options.progress, sources.input_bytes()) as on_bytes:
            languages, errors = write_language(partial, language_model, spec, sources, stored, lengths, on_bytes)
            vision = write_vision(partial, vision_model, sources, on_bytes)
            write_embedding(partial, sources, stored, on_bytes)
        if target.operators is not None:
            for graph in (vision, *languages):
                check_operators(onnx.load(partial / graph.file, load_external_data=False), target.operators)
        prompt_names = prompt_files.write(prompt, partial)
        job = ParityJob(checkpoint_path, partial, options.attention, stored, vision, languages[0], options.progress)
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
                newline=spec.facts.newline,
            ),
            quantisation=Quantisation(
                precision=precision,
                bits=stored.decoder.bits if stored.decoder else stored.bits,
                block_size=stored.decoder.block_size if stored.decoder else None,
                lm_head_bits=stored.lm_head.bits if stored.lm_head else stored.bits,
                embedding_dtype="float32" if stored.embedding == "F32" else "float16",
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
        size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
        with step("hashes", options.progress, size) as on_bytes:
            return write_manifest(partial, manifest, on_bytes)  # which reads back and checks what it writes


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


def _check_blocks(spec: ModelSpec, stored: Schemes) -> None:
    """DequantizeLinear's blocks fill every matrix: TensorRT takes no partial one."""
    block = stored.decoder.block_size if stored.decoder and stored.dtype == "float16" else None
    if block is None:
        return
    shape = spec.decoder
    widths = (shape.hidden_size, shape.heads * shape.head_dim, shape.intermediate_size)
    uneven = [width for width in widths if width % block]
    if uneven:
        raise InputError(
            f"int4 in blocks of {block} for matrices with {uneven[0]} inputs",
            expected="a number of inputs that the block size divides",
            fix="choose another --block-size, or --precision int8",
        )


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
    language, vision = language_graph(spec.decoder, dtype), vision_graph(spec.vision, dtype)
    target.quantise(language, stored.of)
    target.lower(language, sliding_window=spec.decoder.sliding_window)
    target.lower(vision)
    return language, vision
