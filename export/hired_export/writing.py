"""The bundle's large files: both graphs with their weights, and the embedding table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from hired_edge.manifest import Graph
from hired_edge.tensorfile import TensorWriter
from hired_export.families import ModelSpec, rotary_tables
from hired_export.graphs import fix_dimension
from hired_export.progress import OnBytes
from hired_export.sources import Schemes, Sources, is_matrix
from hired_export.weights import ExternalData, QuantisationError, refusing_overflow, transposed, write_quantised

EMBEDDING = "embedding.safetensors"
VISION, LANGUAGE = "vision/model.onnx", "language/model.onnx"


def write_language(
    root: Path,
    model: ir.Model,
    spec: ModelSpec,
    sources: Sources,
    stored: Schemes,
    lengths: tuple[int, ...],
    on_bytes: OnBytes,
) -> tuple[tuple[Graph, ...], list[QuantisationError]]:
    """One weights file, and a graph for each cache length M: `language/model-M.onnx`.

    `lengths`: ascending; none for one graph with M symbolic, `language/model.onnx`.
    """
    cos, sin = rotary_tables(spec.config.text_config)
    path = root / LANGUAGE
    path.parent.mkdir()
    errors = []
    with ExternalData(path) as data:
        for name, tensor in sources.language.items():
            scheme = stored.of_tensor(name, tensor.shape)
            if scheme is not None:
                errors.append(write_quantised(data, model.graph, name, tensor, scheme))
            else:
                chunks = transposed(tensor) if is_matrix(name, tensor.shape) else tensor.chunks()
                data.write(model.graph.initializers[name], chunks)
            on_bytes(tensor.float_bytes)
        data.write(model.graph.initializers["rotary_cos"], [cos.numpy()])
        data.write(model.graph.initializers["rotary_sin"], [sin.numpy()])
    if not lengths:
        return (_save(model, root, LANGUAGE, LANGUAGE),), errors
    symbolic = ir.to_proto(model)
    graphs = []
    for length in lengths:
        fixed = ir.from_proto(symbolic)
        fix_dimension(fixed, "max_sequence", length)
        graphs.append(_save(fixed, root, f"language/model-{length}.onnx", LANGUAGE, length))
    return tuple(graphs), errors


def write_vision(root: Path, model: ir.Model, sources: Sources, on_bytes: OnBytes) -> Graph:
    path = root / VISION
    path.parent.mkdir()
    with ExternalData(path) as data:
        for name, tensor in sources.vision.items():
            value = model.graph.initializers.get(name)
            if value is not None:  # the last layer may be read for its attention alone
                data.write(value, transposed(tensor) if is_matrix(name, tensor.shape) else tensor.chunks())
            on_bytes(tensor.float_bytes)
    return _save(model, root, VISION, VISION)


def _save(model: ir.Model, root: Path, name: str, weights: str, length: int | None = None) -> Graph:
    proto = ir.to_proto(model)
    (root / name).write_bytes(proto.SerializeToString(deterministic=True))
    return Graph(
        file=name,
        data=(f"{weights}.data",),
        opset=model.opset_imports[""],
        inputs=tuple(str(value.name) for value in model.graph.inputs),
        outputs=tuple(str(value.name) for value in model.graph.outputs),
        max_sequence_length=length,
    )


def write_embedding(root: Path, sources: Sources, stored: Schemes, on_bytes: OnBytes) -> None:
    dtype = np.float32 if stored.embedding == "F32" else np.float16
    tensors = {"embed_tokens": (stored.embedding, sources.embedding.shape)}
    if sources.newline is not None:
        tensors["image_newline"] = (stored.embedding, sources.newline.shape)
    with TensorWriter(root / EMBEDDING, tensors) as writer, refusing_overflow("embed_tokens or image_newline"):
        for rows in sources.embedding.chunks():
            writer.write("embed_tokens", rows.astype(dtype))
            on_bytes(rows.nbytes)
        if sources.newline is not None:
            for rows in sources.newline.chunks():
                writer.write("image_newline", rows.astype(dtype))
