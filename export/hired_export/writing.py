"""The bundle's large files: both graphs with their weights, and the embedding table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from hired_edge.manifest import FileRecord, Graph
from hired_export.embedding import write_embedding
from hired_export.external import ExternalData
from hired_export.families import ModelSpec, rotary_tables
from hired_export.graphs import fix_dimension
from hired_export.journal import Journal
from hired_export.lowering.matmul import quantised_name
from hired_export.progress import OnBytes
from hired_export.sources import Schemes, Sources, is_matrix
from hired_export.weights import QuantisationError, write_plain, write_quantised

EMBEDDING = "embedding.safetensors"
VISION, LANGUAGE = "vision/model.onnx", "language/model.onnx"


class Writing:
    """Writes into a bundle's folder, and keeps what is known of it afterwards.

    Args:
        root: the folder.
        sources: what is written.
        stored: how.
        journal: what a stopped export wrote before; None = nothing.
        on_bytes: is told what has been dealt with, as `Sources.input_bytes` counts it.
    """

    def __init__(
        self, root: Path, sources: Sources, stored: Schemes, journal: Journal | None, on_bytes: OnBytes
    ) -> None:
        self._root, self._sources, self._stored = root, sources, stored
        self._journal, self._on_bytes = journal, on_bytes
        self.errors: list[QuantisationError] = []
        self.records: dict[str, FileRecord] = {}
        """Of files that were hashed while they were written."""

    def language(self, model: ir.Model, spec: ModelSpec, lengths: tuple[int, ...]) -> tuple[Graph, ...]:
        """One weights file, and a graph for each cache length M: `language/model-M.onnx`.

        `lengths`: ascending; none for one graph with M symbolic, `language/model.onnx`.
        """
        tables = dict(zip(("rotary_cos", "rotary_sin"), rotary_tables(spec.config.text_config), strict=True))
        with self._data(LANGUAGE) as data:
            for name, tensor in self._sources.language.items():
                scheme = self._stored.of_tensor(name, tensor.shape)
                if scheme is not None:
                    self.errors.append(write_quantised(data, model.graph, name, tensor, scheme))
                else:
                    write_plain(data, model.graph, name, tensor, transpose=is_matrix(name, tensor.shape))
                self._on_bytes(tensor.float_bytes)
            for name, table in tables.items():
                data.write(model.graph.initializers[name], [table.numpy()])
            self.records[f"{LANGUAGE}.data"] = data.record
        if not lengths:
            return (_save(model, self._root, LANGUAGE, LANGUAGE),)
        fixed = ((length, at_length(model, length)) for length in lengths)
        return tuple(
            _save(graph, self._root, f"language/model-{length}.onnx", LANGUAGE, length) for length, graph in fixed
        )

    def vision(self, model: ir.Model) -> Graph:
        with self._data(VISION) as data:
            for name, tensor in self._sources.vision.items():
                if quantised_name(name) in model.graph.initializers:
                    assert self._stored.vision is not None
                    error = write_quantised(data, model.graph, name, tensor, self._stored.vision)
                    self.errors.append(replace(error, name=f"vision.{name}"))  # the decoder has the same names
                if name in model.graph.initializers:  # the last layer may be read for its attention alone
                    write_plain(data, model.graph, name, tensor, transpose=is_matrix(name, tensor.shape))
                self._on_bytes(tensor.float_bytes)
            self.records[f"{VISION}.data"] = data.record
        return _save(model, self._root, VISION, VISION)

    def embedding(self) -> None:
        sources = self._sources
        error = write_embedding(
            self._root / EMBEDDING, sources.embedding, sources.newline, self._stored.embedding, self._on_bytes
        )
        if error is not None:
            self.errors.append(QuantisationError("embed_tokens", error))

    def _data(self, graph: str) -> ExternalData:
        path = self._root / graph
        path.parent.mkdir(exist_ok=True)  # it is there where a stopped export goes on
        return ExternalData(path, self._journal, f"{graph}.data")


def at_length(model: ir.Model, length: int) -> ir.Model:
    """A copy of a language graph with the cache length M fixed."""
    fixed = ir.from_proto(ir.to_proto(model))
    fix_dimension(fixed, "max_sequence", length)
    return fixed


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
