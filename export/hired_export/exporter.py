"""Checkpoint -> bundle: everything in `OUT.partial/`, checked, then renamed to OUT in one step.

An export that fails, for whatever reason, leaves neither OUT nor OUT.partial behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from hired_edge import __version__
from hired_edge.budget import Budget, parse_budget
from hired_edge.bundle import write_manifest
from hired_edge.errors import InputError, LimitError
from hired_edge.limits import Limits, derive_limits
from hired_edge.manifest import (
    FORMAT_VERSION,
    Graph,
    Manifest,
    Precision,
    Quantisation,
    Target,
    TextModel,
    VisionModel,
)
from hired_edge.plan import NO_PLAN
from hired_edge.tensorfile import TensorWriter
from hired_export import prompt_files
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, ModelSpec, read_preprocessing, read_spec, rotary_tables
from hired_export.graphs import language_graph, vision_graph
from hired_export.lowering import cpu, matmul
from hired_export.parity import CheckOutcome, ParityJob, check_in_child
from hired_export.partial import partial_folder
from hired_export.progress import OnBytes, step
from hired_export.quantisation import BLOCK_SIZES, Scheme
from hired_export.sources import Schemes, Sources, is_matrix
from hired_export.weights import ExternalData, QuantisationError, transposed, write_quantised

TARGETS: dict[str, str] = {"cpu": "float32"}
"""Target -> dtype of activations."""
EMBEDDING = "embedding.safetensors"
VISION, LANGUAGE = "vision/model.onnx", "language/model.onnx"


@dataclass(frozen=True)
class ExportOptions:
    """What a user chooses. Token numbers are maxima of a request; `block_size` is for int4."""

    target: Target = "cpu"
    precision: Precision = "fp32"
    visual_tokens: tuple[str, ...] = ("20%",)
    max_text_tokens: int = 512
    max_new_tokens: int = 256
    max_batch: int = 1
    max_images: int = 1
    attention: AttentionChoice = field(default_factory=AttentionChoice)
    block_size: int = 32
    progress: bool = True


def schemes(options: ExportOptions) -> Schemes:
    """int4 keeps the LM head in 8 bits: its errors reach the logits directly, and it is a small share of the bytes."""
    channel = Scheme(8, None)
    by_precision = {
        "fp32": Schemes(None, None, "F32"),
        "int8": Schemes(channel, channel, "F16"),
        "int4": Schemes(Scheme(4, options.block_size), channel, "F16"),
    }
    if options.precision not in by_precision:
        raise InputError(
            f"--precision {options.precision} with --target {options.target}",
            expected=" or ".join(by_precision),
            fix="choose one of them",
        )
    if options.block_size not in BLOCK_SIZES:
        raise InputError(
            f"--block-size {options.block_size}", expected=" or ".join(map(str, BLOCK_SIZES)), fix="choose one of them"
        )
    return by_precision[options.precision]


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
    spec = read_spec(checkpoint, options.attention)
    stored = schemes(options)
    limits = _limits(spec, options)
    spec = _with_window(spec, limits)
    prompt = prompt_files.read(checkpoint, spec.config)
    preprocess = read_preprocessing(checkpoint, spec.tiling)
    sources = Sources(checkpoint, spec)
    with partial_folder(out, sources.output_bytes(stored)) as partial:
        with step("graphs", options.progress):
            language_model, vision_model = _graphs(spec, stored)
        with step("weights", options.progress, sources.input_bytes()) as on_bytes:
            language, errors = _write_language(partial, language_model, spec, sources, stored, on_bytes)
            vision = _write_vision(partial, vision_model, sources, on_bytes)
            _write_embedding(partial, spec, sources, stored, on_bytes)
        prompt_names = prompt_files.write(prompt, partial)
        job = ParityJob(checkpoint_path, partial, options.attention, stored.decoder, stored.lm_head, options.progress)
        outcome = check(job)
        outcome.raise_if_failed()
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            producer=f"hired-edge {__version__}",
            family=spec.family,
            checkpoint=checkpoint_path.resolve().name,
            target=options.target,
            text=_text_model(spec, options),
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
                precision=options.precision,
                bits=stored.decoder.bits if stored.decoder else 32,
                block_size=stored.decoder.block_size if stored.decoder else None,
                lm_head_bits=stored.lm_head.bits if stored.lm_head else 32,
                embedding_dtype="float32" if stored.embedding == "F32" else "float16",
            ),
            limits=limits,
            vision_graph=vision,
            language_graph=language,
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
    if limits.max_sequence_length > spec.decoder.positions:
        raise LimitError(
            f"a maximum sequence length of {limits.max_sequence_length} ({limits.formula})",
            expected=f"at most {spec.decoder.positions}, the text model's max_position_embeddings",
            fix="lower --visual-tokens, --max-text-tokens, --max-new-tokens or --max-images",
        )
    return limits


def _with_window(spec: ModelSpec, limits: Limits) -> ModelSpec:
    """A window that no sequence of this bundle can outgrow is no window."""
    window = spec.decoder.sliding_window
    if window is None or window < limits.max_sequence_length:
        return spec
    return replace(spec, decoder=replace(spec.decoder, sliding_window=None))


def _text_model(spec: ModelSpec, options: ExportOptions) -> TextModel:
    decoder = spec.decoder
    dtype = "float32" if TARGETS[options.target] == "float32" else "float16"
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
        activation_dtype=dtype,
        cache_dtype=dtype,
        cache="in_place",
    )


def _graphs(spec: ModelSpec, stored: Schemes) -> tuple[ir.Model, ir.Model]:
    """The target's language and vision graphs, without weights."""
    language, vision = language_graph(spec.decoder), vision_graph(spec.vision)
    cpu.lower(language, sliding_window=spec.decoder.sliding_window)
    matmul.lower(language, stored.of)
    cpu.lower(vision)
    return language, vision


def _write_language(
    root: Path, model: ir.Model, spec: ModelSpec, sources: Sources, stored: Schemes, on_bytes: OnBytes
) -> tuple[Graph, list[QuantisationError]]:
    cos, sin = rotary_tables(spec.config.text_config)
    path = root / LANGUAGE
    path.parent.mkdir()
    errors = []
    with ExternalData(path) as data:
        for name, tensor in sources.language.items():
            scheme = stored.of(name) if len(tensor.shape) == 2 else None
            if scheme is not None:
                errors.append(write_quantised(data, model.graph, name, tensor, scheme))
            else:
                chunks = transposed(tensor) if len(tensor.shape) == 2 else tensor.chunks()
                data.write(model.graph.initializers[name], chunks)
            on_bytes(tensor.float_bytes)
        data.write(model.graph.initializers["rotary_cos"], [cos.numpy()])
        data.write(model.graph.initializers["rotary_sin"], [sin.numpy()])
    return _save(model, root, LANGUAGE), errors


def _write_vision(root: Path, model: ir.Model, sources: Sources, on_bytes: OnBytes) -> Graph:
    path = root / VISION
    path.parent.mkdir()
    with ExternalData(path) as data:
        for name, tensor in sources.vision.items():
            value = model.graph.initializers.get(name)
            if value is not None:  # the last layer may be read for its attention alone
                data.write(value, transposed(tensor) if is_matrix(name, tensor.shape) else tensor.chunks())
            on_bytes(tensor.float_bytes)
    return _save(model, root, VISION)


def _save(model: ir.Model, root: Path, name: str) -> Graph:
    proto = ir.to_proto(model)
    (root / name).write_bytes(proto.SerializeToString(deterministic=True))
    return Graph(
        file=name,
        data=(f"{name}.data",),
        opset=model.opset_imports[""],
        inputs=tuple(str(value.name) for value in model.graph.inputs),
        outputs=tuple(str(value.name) for value in model.graph.outputs),
    )


def _write_embedding(root: Path, spec: ModelSpec, sources: Sources, stored: Schemes, on_bytes: OnBytes) -> None:
    dtype = np.float32 if stored.embedding == "F32" else np.float16
    tensors = {"embed_tokens": (stored.embedding, sources.embedding.shape)}
    if sources.newline is not None:
        tensors["image_newline"] = (stored.embedding, sources.newline.shape)
    with TensorWriter(root / EMBEDDING, tensors) as writer:
        for rows in sources.embedding.chunks():
            writer.write("embed_tokens", rows.astype(dtype))
            on_bytes(rows.nbytes)
        if sources.newline is not None:
            for rows in sources.newline.chunks():
                writer.write("image_newline", rows.astype(dtype))
