"""`manifest.json`: everything a bundle says about itself, as frozen dataclasses.

The export writes it once and it never changes afterwards. It holds no timestamp, no path of the exporting machine and
nothing about the board (engines describe themselves), so the same export gives the same bytes. This module knows the
manifest's rules but touches no file: see `hired_edge.bundle`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hired_edge import strict
from hired_edge.errors import BundleError, InputError
from hired_edge.filenames import check_file_name, signature_name
from hired_edge.limits import Limits, cache_lengths, rederive
from hired_edge.manifest_parts import (
    EmbeddingType,
    FileRecord,
    FloatType,
    GoldenCase,
    Graph,
    Method,
    ParityCheck,
    Precision,
    PromptFiles,
    Quantisation,
    Target,
    TextModel,
    VisionModel,
    VisionPrecision,
    refuse,
)
from hired_edge.plan import MemoryPlan, memory_plan
from hired_edge.strict import show

__all__ = [
    "ENGINES_FOLDER",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "EmbeddingType",
    "FileRecord",
    "FloatType",
    "GoldenCase",
    "Graph",
    "Manifest",
    "Method",
    "ParityCheck",
    "Precision",
    "PromptFiles",
    "Quantisation",
    "Target",
    "TextModel",
    "VisionModel",
    "VisionPrecision",
    "parse_manifest",
]

FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
ENGINES_FOLDER = "engines"
"""What a board builds lies here: never in the manifest, and verified by its own records."""


@dataclass(frozen=True)
class Manifest:
    """The whole of `manifest.json`. `validate` checks what no single part can see."""

    format_version: int
    producer: str
    """Who wrote it ("hired-edge 0.1.0")."""
    family: str
    """Its `model_type`: "llava", "llava_next", "internvl"."""
    checkpoint: str
    """A name, never a path."""
    target: Target
    text: TextModel
    vision: VisionModel
    quantisation: Quantisation
    limits: Limits
    vision_graph: Graph
    language_graphs: tuple[Graph, ...]
    """One with a symbolic cache length; or one for each length that the budgets need, ascending, over the same data."""
    embedding: str
    """Safetensors file with the token embedding (V, D)."""
    prompt: PromptFiles
    image_token: str
    stop_token_ids: tuple[int, ...]
    parity: tuple[ParityCheck, ...]
    golden: tuple[GoldenCase, ...]
    quantisation_errors: dict[str, float]
    """Relative root-mean-square error of each quantised tensor."""
    files: dict[str, FileRecord]
    """Every file of the bundle but this one, by its path."""
    memory: MemoryPlan
    """What the exported maxima take."""
    digest: str
    """sha256 of this manifest with an empty digest: shows an edit, not a forgery (that is a signature's business)."""

    def computed_digest(self) -> str:
        """What `digest` must be."""
        return hashlib.sha256(strict.dumps(replace(self, digest="")).encode()).hexdigest()

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Every graph: the vision encoder's, then the language model's."""
        return (self.vision_graph, *self.language_graphs)

    def language_graph(self, limits: Limits) -> Graph:
        """The language graph of an opening: the one with the shortest cache that is long enough."""
        for graph in self.language_graphs:
            if graph.max_sequence_length is None or graph.max_sequence_length >= limits.max_sequence_length:
                return graph
        raise AssertionError("an opening is never larger than the largest graph")

    def cache_length(self, limits: Limits) -> int:
        """Slots of the cache of an opening: its own M, or what its graph is made for."""
        return self.language_graph(limits).max_sequence_length or limits.max_sequence_length

    def referenced_files(self) -> Iterator[tuple[str, str]]:
        """Every (field, file) that names a file of the bundle."""
        fields = {"vision_graph": self.vision_graph}
        fields |= {f"language_graphs[{i}]": graph for i, graph in enumerate(self.language_graphs)}
        for field, graph in fields.items():
            yield f"{field}.file", graph.file
            yield from ((f"{field}.data[{i}]", name) for i, name in enumerate(graph.data))
        yield "embedding", self.embedding
        for field in ("tokenizer", "tokenizer_config", "chat_template", "generation_config"):
            name = getattr(self.prompt, field)
            if name is not None:
                yield f"prompt.{field}", name
        for i, case in enumerate(self.golden):
            yield f"golden[{i}].inputs", case.inputs
            yield f"golden[{i}].outputs", case.outputs

    def validate(self) -> Manifest:
        """Check the rules that span several fields, and return the manifest itself.

        Raises:
            BundleError: a file that is not in `files` or whose name could leave the bundle, a checkpoint that is a
                path, limits that do not fit the model.
        """
        for name in self.files:
            check_file_name(name)
            own = (MANIFEST_NAME, signature_name(MANIFEST_NAME), ENGINES_FOLDER)
            if name in own or name.startswith(f"{ENGINES_FOLDER}/"):
                refuse(f"manifest.files names {name}", "what the export wrote, and not the manifest itself")
        for field, name in self.referenced_files():
            if name not in self.files:
                refuse(f"manifest.{field} is {show(name)}", "a file listed in manifest.files")
        for field in ("producer", "family", "checkpoint", "image_token"):
            if not getattr(self, field):
                refuse(f"manifest.{field} is empty", "a name")
        if re.search(r"[/\\]", self.checkpoint):
            refuse(f"manifest.checkpoint is {show(self.checkpoint)}", "a name without a path")
        self._check_limits()
        self._check_lengths()
        if self.memory != memory_plan(self):
            refuse("manifest.memory is not what the limits and the files give", f"{memory_plan(self)}")
        for token in self.stop_token_ids:
            if not 0 <= token < self.text.vocab_size:
                refuse(f"manifest.stop_token_ids holds {token}", f"0 to {self.text.vocab_size - 1}")
        return self

    def _check_limits(self) -> None:
        limits = self.limits
        try:
            derived = rederive(limits, self.vision.tiling)
        except InputError as error:
            refuse(f"manifest.limits.budgets holds {error.got}", error.expected)
        for name in ("visual_tokens", "tiles"):
            if getattr(limits, name) != getattr(derived, name):
                refuse(
                    f"manifest.limits.{name} is {getattr(limits, name)}",
                    f"{getattr(derived, name)}, by the budgets {', '.join(limits.budgets)} and the tiling",
                )
        if limits.max_sequence_length > self.text.positions:
            refuse(
                f"manifest.limits.max_sequence_length is {limits.max_sequence_length}",
                f"at most {self.text.positions}, the length of the rotary tables",
            )

    def _check_lengths(self) -> None:
        """The language graphs are made for what the budgets need, and read the same weights."""
        graphs, tiling = self.language_graphs, self.vision.tiling
        got = [graph.max_sequence_length for graph in graphs]
        if got != [None] and got != list(cache_lengths(self.limits, tiling)):
            expected = f"null, or {list(cache_lengths(self.limits, tiling))} by the budgets"
            refuse(f"manifest.language_graphs are made for max_sequence_length {got}", expected)
        for i, graph in enumerate(graphs):
            if (graph.data, graph.inputs, graph.outputs) != (graphs[0].data, graphs[0].inputs, graphs[0].outputs):
                refuse(f"manifest.language_graphs[{i}] is not the first one with another length", "one model")


def parse_manifest(text: str) -> Manifest:
    """Read `manifest.json`; the version is checked before anything else is looked at.

    Raises:
        BundleError: not JSON, another format version, or a rule of the manifest is broken.
    """
    data = strict.loads(text)
    version = data.get("format_version") if isinstance(data, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise BundleError(
            f"the manifest's format_version is {show(version)}",
            expected=f"{FORMAT_VERSION}",
            fix="install the hired-edge that wrote this bundle, or export it again with this one",
        )
    return strict.from_json(Manifest, data).validate()
