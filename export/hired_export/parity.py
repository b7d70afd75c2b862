"""After every export: the bundle's graphs in ONNX Runtime against transformers, on seeded inputs, piece by piece.

Pieces: the vision encoder; the first, middle and last decoder layer; norm and LM head; and, where its float32 weights
fit WHOLE_MODEL_BYTES, the whole text model. So a check costs about as much at 7 billion parameters as here. What it
does not show: that quantised weights answer well (their error is recorded, not judged), and long sequences.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from hired_edge.errors import ExportError
from hired_edge.manifest import GoldenCase, ParityCheck
from hired_edge.tensorfile import write_tensors
from hired_export.checkpoint import Checkpoint
from hired_export.families import AttentionChoice, ModelSpec, read_spec
from hired_export.graphs import past_names, present_names
from hired_export.quantisation import Scheme
from hired_export.references import References

SEED = 0
TOKENS, SLOTS, DECODE_STEPS = 16, 64, 2
"""Prompt length, cache length and decode steps of the check."""
WHOLE_MODEL_BYTES = 2 * 2**30
GOLDEN_BYTES = 6 * 2**30
FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-4, 6e-2
"""Of the largest reference value. The second is for a whole model as shipped, whose MatMulNBits round activations to
int8; pieces are compared with activations in float32, so a wrong weight or scale cannot hide behind that."""
FEATURES = ("image_features", "allocation_attention", "selection_attention")


@dataclass(frozen=True)
class ParityJob:
    """What a check needs, small enough to be sent to another process."""

    checkpoint: Path
    bundle: Path
    attention: AttentionChoice
    decoder: Scheme | None
    lm_head: Scheme | None


@dataclass(frozen=True)
class Comparison:
    """One output of one piece. Passed where the largest error is at most `tolerance`."""

    piece: str
    max_abs_error: float
    max_abs_reference: float
    tolerance: float


@dataclass(frozen=True)
class CheckOutcome:
    """Every comparison made, passed or not, and the golden files written."""

    comparisons: tuple[Comparison, ...]
    golden: tuple[GoldenCase, ...]

    def raise_if_failed(self) -> None:
        """Raises ExportError naming the worst piece."""
        worst = max(self.comparisons, key=lambda c: c.max_abs_error / c.tolerance)
        # "not <=" rather than ">": a NaN must fail.
        if any(not c.max_abs_error <= c.tolerance for c in self.comparisons):
            raise ExportError(
                f"parity check failed: {worst.piece} differs by {worst.max_abs_error:.2g}",
                expected=f"at most {worst.tolerance:.2g} from transformers (largest: {worst.max_abs_reference:.2g})",
                fix="report this with the checkpoint's config.json; no bundle was written",
            )

    @property
    def checks(self) -> tuple[ParityCheck, ...]:
        reference = "transformers, float32, the same dequantised weights"
        return tuple(
            ParityCheck(c.piece, reference, c.max_abs_error, c.max_abs_reference, c.tolerance) for c in self.comparisons
        )


def check_in_child(job: ParityJob) -> CheckOutcome:
    """`check` in a process of its own: its memory is not the exporter's, and a crash there is an error here.

    Raises:
        ExportError: the process died.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_ignore_interrupt)
    try:
        return pool.submit(check, job).result()
    except BrokenProcessPool:
        raise ExportError(
            "the parity check's process died",
            expected="enough memory for one decoder layer or the vision tower in float32, whichever is larger",
            fix="close other programs and export again",
        ) from None
    except BaseException:
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends this process


@torch.inference_mode()
def check(job: ParityJob) -> CheckOutcome:
    """Runs every comparison and writes `golden/`. Memory: one piece at a time."""
    checkpoint = Checkpoint(job.checkpoint)
    spec = read_spec(checkpoint, job.attention)
    references = References(checkpoint, spec, job.decoder, job.lm_head)
    golden = job.bundle / "golden"
    golden.mkdir()
    comparisons, cases = [], []
    found, case = _check_vision(job, spec, references)
    comparisons += found
    cases.append(case)
    language = Language(job.bundle / "language" / "model.onnx", spec)
    comparisons += list(_check_layers(language, spec, references))
    tolerance = FLOAT_TOLERANCE if job.decoder is None else INTEGER_TOLERANCE
    inputs = Seeded(spec)
    if _text_bytes(spec) <= WHOLE_MODEL_BYTES:
        expected = references.whole(torch.from_numpy(inputs.embeds)).numpy()[0]
        logits = language.generate(inputs)
        comparisons.append(_compare("language", logits, expected[TOKENS - 1 :], tolerance))
        cases.append(_golden_language(job.bundle, inputs, logits))
    elif language.path.with_name("model.onnx.data").stat().st_size <= GOLDEN_BYTES:
        cases.append(_golden_language(job.bundle, inputs, language.generate(inputs)))
    return CheckOutcome(tuple(comparisons), tuple(cases))


class Seeded:
    """Inputs that depend on the seed and the model's width alone."""

    def __init__(self, spec: ModelSpec) -> None:
        generator = np.random.Generator(np.random.PCG64(SEED))
        length = TOKENS + DECODE_STEPS
        self.embeds = generator.standard_normal((1, length, spec.decoder.hidden_size), np.float32)
        size = spec.vision.image_size
        self.pixels = generator.standard_normal((2, 3, size, size), np.float32)


def _compare(piece: str, got: NDArray, expected: NDArray, tolerance: float) -> Comparison:
    assert got.shape == expected.shape, f"{piece}: {got.shape} against {expected.shape}"
    largest = float(np.abs(expected).max())
    # NaN anywhere makes the error NaN, which no tolerance admits.
    return Comparison(piece, float(np.abs(got - expected).max()), largest, tolerance * largest)


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _check_vision(job: ParityJob, spec: ModelSpec, references: References) -> tuple[list[Comparison], GoldenCase]:
    pixels = Seeded(spec).pixels
    expected = references.vision(torch.from_numpy(pixels))
    runner = session(job.bundle / "vision" / "model.onnx")
    outputs = runner.run(list(FEATURES), {"pixel_values": pixels})
    got: dict[str, NDArray] = dict(zip(FEATURES, map(np.asarray, outputs), strict=True))
    found = [
        _compare(f"vision.{name}", got[name], reference.numpy(), FLOAT_TOLERANCE)
        for name, reference in zip(FEATURES, expected, strict=True)
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


class Language:
    """The language graph in ONNX Runtime, whole or cut between two named values."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.path, self._spec = path, spec

    def feeds(self, names: set[str], hidden: tuple[str, NDArray], start: int, past: dict[str, NDArray]) -> dict:
        """Inputs of one step of B = 1, as far as the graph has them."""
        count = hidden[1].shape[1]
        positions = np.arange(start, start + count)[None]
        window = self._spec.decoder.sliding_window or SLOTS
        slots = np.arange(SLOTS)
        seen = (slots <= positions[0][:, None]) & (slots > positions[0][:, None] - window)
        everything = {
            "inputs_embeds": hidden[1],  # a cut graph may still read its shape
            hidden[0]: hidden[1],
            "position_ids": positions,
            "attention_mask": seen[None, None],
            "write_indices": np.array([start]),
            "last_token": np.array([count - 1]),
            **past,
        }
        return {name: value for name, value in everything.items() if name in names}

    def empty_cache(self) -> dict[str, NDArray]:
        shape = (1, self._spec.decoder.kv_heads, SLOTS, self._spec.decoder.head_dim)
        return {name: np.zeros(shape, np.float32) for name in past_names(self._spec.decoder.layers)}

    def cut(self, source: str, target: str, hidden: NDArray) -> NDArray:
        """The value `target` computed from `source` by the shipped graph's own nodes."""
        model = onnx.load(self.path, load_external_data=False)
        _cut(model, source, target)
        _compute_in_float(model)
        path = self.path.with_name("parity-cut.onnx")  # beside the weights that it refers to
        try:
            path.write_bytes(model.SerializeToString())
            runner = session(path)
        finally:
            path.unlink(missing_ok=True)
        names = {value.name for value in runner.get_inputs()}
        (result,) = runner.run([target], self.feeds(names, (source, hidden), 0, self.empty_cache()))
        return np.asarray(result)

    def generate(self, inputs: Seeded) -> NDArray:
        """Logits (1 + DECODE_STEPS, V): after the prompt, then after each further token."""
        runner = session(self.path)
        names = {value.name for value in runner.get_inputs()}
        layers = self._spec.decoder.layers
        past, logits, start = self.empty_cache(), [], 0
        for stop in range(TOKENS, TOKENS + DECODE_STEPS + 1):
            feeds = self.feeds(names, ("inputs_embeds", inputs.embeds[:, start:stop]), start, past)
            first, *present = runner.run(["logits", *present_names(layers)], feeds)
            past = dict(zip(past_names(layers), map(np.asarray, present), strict=True))
            logits.append(np.asarray(first)[0])
            start = stop
        return np.stack(logits)


def _cut(model: onnx.ModelProto, source: str, target: str) -> None:
    """Leaves only the nodes that lead to `target` from `source` and the graph's own inputs."""
    graph = model.graph
    given = {value.name: value for value in graph.input}
    given[source] = given.get(source) or onnx.helper.make_tensor_value_info(source, onnx.TensorProto.FLOAT, None)
    needed, nodes = {target}, []
    for node in reversed(graph.node):  # a graph is sorted: readers come after producers
        if needed & set(node.output) and source not in node.output:
            nodes.append(node)
            needed |= set(node.input)
    stored = [tensor for tensor in graph.initializer if tensor.name in needed]
    result = onnx.helper.make_tensor_value_info(target, onnx.TensorProto.FLOAT, None)
    inputs = [value for name, value in given.items() if name in needed]
    graph.CopyFrom(onnx.helper.make_graph(nodes[::-1], "cut", inputs, [result], stored))


def _compute_in_float(model: onnx.ModelProto) -> None:
    """Lets MatMulNBits leave activations in float32, so that a wrong weight is not hidden by their rounding."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1


def _check_layers(language: Language, spec: ModelSpec, references: References) -> Iterator[Comparison]:
    hidden = Seeded(spec).embeds[:, :TOKENS]
    last = spec.decoder.layers - 1
    for index in sorted({0, last // 2, last}):
        source = f"hidden_states.{index}" if index else "inputs_embeds"
        got = language.cut(source, f"hidden_states.{index + 1}", hidden)
        expected = references.layer(index, torch.from_numpy(hidden)).numpy()
        yield _compare(f"language.layers.{index}", got, expected, FLOAT_TOLERANCE)
    got = language.cut(f"hidden_states.{last + 1}", "logits", hidden)
    expected = references.head(torch.from_numpy(hidden[:, -1])).numpy()
    yield _compare("language.lm_head", got, expected, FLOAT_TOLERANCE)


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
