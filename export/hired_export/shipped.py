"""A bundle's graphs as they lie on disk, run in ONNX Runtime on seeded inputs: whole, or cut between named values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from hired_edge.manifest import FloatType
from hired_export.families import ModelSpec
from hired_export.graphs import past_names, present_names

SEED = 0
TOKENS, SLOTS, DECODE_STEPS = 16, 64, 2
"""Prompt length, cache length and decode steps."""


class Seeded:
    """Inputs that depend on the seed and the model's width alone."""

    def __init__(self, spec: ModelSpec) -> None:
        generator = np.random.Generator(np.random.PCG64(SEED))
        length = TOKENS + DECODE_STEPS
        self.embeds = generator.standard_normal((1, length, spec.decoder.hidden_size), np.float32)
        size = spec.vision.image_size
        self.pixels = generator.standard_normal((2, 3, size, size), np.float32)


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Where int4 DequantizeLinear and MatMul are fused, activations are not to be rounded to int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def edited_session(path: Path, model: onnx.ModelProto) -> ort.InferenceSession:
    """A session of a changed graph, made of the one at `path` and reading the same weights."""
    beside = path.with_name("parity-check.onnx")
    try:
        beside.write_bytes(model.SerializeToString())
        return session(beside)
    finally:
        beside.unlink(missing_ok=True)


class Language:
    """The language graph in ONNX Runtime, whole or cut between two named values."""

    def __init__(self, path: Path, slots: int | None, spec: ModelSpec, dtype: FloatType) -> None:
        """`slots`: the cache length that the graph is made for; None = any. `dtype`: its activations."""
        self.path, self._slots, self._spec = path, slots or SLOTS, spec
        self.dtype: FloatType = dtype

    @cached_property
    def _appends(self) -> bool:
        """Whether the graph gives out new keys and values alone: then nothing tells it where they are written."""
        model = onnx.load(self.path, load_external_data=False)
        return "write_indices" not in {value.name for value in model.graph.input}

    def feeds(self, names: set[str], hidden: tuple[str, NDArray], start: int, past: dict[str, NDArray]) -> dict:
        """Inputs of one step of B = 1, as far as the graph has them."""
        values = hidden[1].astype(self.dtype)
        count = values.shape[1]
        positions = np.arange(start, start + count)[None]
        window = self._spec.decoder.sliding_window or self._slots
        slots = np.arange(self._slots)
        seen = (slots <= positions[0][:, None]) & (slots > positions[0][:, None] - window)
        if self._appends:  # the new keys are not in the cache yet
            seen &= slots < start
        everything = {
            "inputs_embeds": values,  # a cut graph may still read its shape
            hidden[0]: values,
            "position_ids": positions,
            "attention_mask": seen[None, None],
            "write_indices": np.array([start]),
            "last_token": np.array([count - 1]),
            **past,
        }
        return {name: value for name, value in everything.items() if name in names}

    def empty_cache(self) -> dict[str, NDArray]:
        shape = (1, self._spec.decoder.kv_heads, self._slots, self._spec.decoder.head_dim)
        return {name: np.zeros(shape, self.dtype) for name in past_names(self._spec.decoder.layers)}

    def cut(self, source: str, target: str, hidden: NDArray) -> NDArray:
        """The value `target` computed from `source` by the shipped graph's own nodes."""
        runner = self._in_float(lambda model: _cut(model, source, target, self.dtype))
        names = {value.name for value in runner.get_inputs()}
        (result,) = runner.run([target], self.feeds(names, (source, hidden), 0, self.empty_cache()))
        return np.asarray(result)

    def _in_float(self, edit: Callable[[onnx.ModelProto], None]) -> ort.InferenceSession:
        """The edited graph, its activations left in float32."""
        model = onnx.load(self.path, load_external_data=False)
        edit(model)
        _compute_in_float(model)
        return edited_session(self.path, model)

    def generate(self, inputs: Seeded, *, as_shipped: bool = True) -> NDArray:
        """Logits (1 + DECODE_STEPS, V): after the prompt, then after each further token.

        `as_shipped`: False leaves the activations of quantised products in float32.
        """
        runner = session(self.path) if as_shipped else self._in_float(lambda model: None)
        names = {value.name for value in runner.get_inputs()}
        layers = self._spec.decoder.layers
        past, logits, start = self.empty_cache(), [], 0
        for stop in range(TOKENS, TOKENS + DECODE_STEPS + 1):
            feeds = self.feeds(names, ("inputs_embeds", inputs.embeds[:, start:stop]), start, past)
            first, *present = runner.run(["logits", *present_names(layers)], feeds)
            for name, value in zip(past_names(layers), map(np.asarray, present), strict=True):
                if self._appends:
                    past[name][:, :, start:stop] = value
                else:
                    past[name] = value
            logits.append(np.asarray(first)[0])
            start = stop
        return np.stack(logits)


def _cut(model: onnx.ModelProto, source: str, target: str, dtype: FloatType) -> None:
    """Leaves only the nodes that lead to `target` from `source` and the graph's own inputs."""
    graph = model.graph
    given = {value.name: value for value in graph.input}
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given[source] = given.get(source) or onnx.helper.make_tensor_value_info(source, element, None)
    needed, nodes = {target}, []
    for node in reversed(graph.node):  # a graph is sorted: readers come after producers
        if needed & set(node.output) and source not in node.output:
            nodes.append(node)
            needed |= set(node.input)
    stored = [tensor for tensor in graph.initializer if tensor.name in needed]
    outputs = {value.name: value for value in graph.output}
    result = outputs.get(target) or onnx.helper.make_tensor_value_info(target, element, None)
    inputs = [value for name, value in given.items() if name in needed]
    graph.CopyFrom(onnx.helper.make_graph(nodes[::-1], "cut", inputs, [result], stored))


def _compute_in_float(model: onnx.ModelProto) -> None:
    """Lets MatMulNBits leave activations in float32, so that a wrong weight is not hidden by their rounding."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
