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
from typing import Literal, NoReturn

from hired_edge import strict
from hired_edge.errors import BundleError, InputError
from hired_edge.filenames import check_file_name
from hired_edge.limits import Limits, rederive
from hired_edge.plan import MemoryPlan, memory_plan
from hired_edge.preprocessing import PreprocessRules
from hired_edge.strict import MEND, show
from hired_edge.tiling import TilingRules

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
ENGINES_FOLDER = "engines"
"""What a board builds lies here: never in the manifest, and no part of what is verified."""

Target = Literal["cpu", "cuda", "jp7", "jp6"]
Precision = Literal["fp32", "fp16", "int8", "int4"]
FloatType = Literal["float32", "float16"]

_BITS: dict[Precision, int] = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TextModel:
    """The language model, as far as a cache, a mask and an embedding table depend on it."""

    model_type: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    sliding_window: int | None
    """Tokens that a query sees, itself included; None for all."""
    positions: int
    """Length of the rotary tables."""
    activation_dtype: FloatType
    cache_dtype: FloatType
    cache: Literal["in_place", "append"]
    """Whether `present.*` is the whole cache at the past's address, or the new keys and values alone."""

    def __post_init__(self) -> None:
        _positive(self, "layers", "heads", "kv_heads", "head_dim", "hidden_size", "vocab_size", "positions")
        if self.sliding_window is not None:
            _positive(self, "sliding_window")
        if self.heads % self.kv_heads:
            _refuse(f"{self.heads} heads share {self.kv_heads} kv_heads", "a whole number of heads per kv head")


@dataclass(frozen=True)
class VisionModel:
    """The vision tower, its geometry and where its attention maps come from. Layers count from 0."""

    model_type: str
    tiling: TilingRules
    preprocess: PreprocessRules
    layers: int
    """Of the checkpoint; the exported graph may stop earlier."""
    allocation_layer: int
    """l_init of the paper."""
    selection_layer: int
    """l_final of the paper."""
    feature_layer: int
    """The layer whose output the projector reads."""
    heads: str
    """How the attention maps aggregate heads: "sum", or the number of the one head."""
    newline: bool
    """Whether the family has an `image_newline`."""

    def __post_init__(self) -> None:
        _positive(self, "layers")
        for name in ("allocation_layer", "selection_layer", "feature_layer"):
            layer = getattr(self, name)
            if not 0 <= layer < self.layers:
                _refuse(f"{name} is {layer}", f"0 to {self.layers - 1}, since the tower has {self.layers} layers")
        if self.heads != "sum" and not re.fullmatch(r"0|[1-9][0-9]{0,5}", self.heads):
            _refuse(f"heads is {show(self.heads)}", '"sum" or the number of a head')
        if self.preprocess.image_size != self.tiling.image_size:
            _refuse(f"preprocess.image_size is {self.preprocess.image_size}", f"the tile's {self.tiling.image_size}")
        if min(self.preprocess.image_std) <= 0:
            _refuse(f"preprocess.image_std is {self.preprocess.image_std}", "positive numbers")


@dataclass(frozen=True)
class Quantisation:
    """How the weights are stored. Always symmetric."""

    precision: Precision
    bits: int
    """Of the decoder's matrices."""
    block_size: int | None
    """Weights that share a scale, along the input axis; None for one scale per output channel, or for none at all."""
    lm_head_bits: int
    embedding_dtype: FloatType

    def __post_init__(self) -> None:
        _positive(self, "lm_head_bits")
        if self.bits != _BITS[self.precision]:
            _refuse(f"bits is {self.bits} for {self.precision}", f"{_BITS[self.precision]}")
        if self.block_size is not None:
            _positive(self, "block_size")


@dataclass(frozen=True)
class Graph:
    """One ONNX file."""

    file: str
    data: tuple[str, ...]
    """Its external data, as files of the bundle."""
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        _positive(self, "opset")


@dataclass(frozen=True)
class PromptFiles:
    """The files that turn messages into token ids."""

    tokenizer: str
    tokenizer_config: str
    chat_template: str
    generation_config: str | None


@dataclass(frozen=True)
class ParityCheck:
    """One piece, run by ONNX Runtime and by the reference on the same seeded inputs. Only what passed is written."""

    piece: str
    reference: str
    """What it was compared with ("torch float32, dequantised weights")."""
    max_abs_error: float
    max_abs_reference: float
    """The largest magnitude in the reference's output, to read the error against."""
    tolerance: float
    """Upper bound on max_abs_error."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_abs_error <= self.tolerance:
            _refuse(f"max_abs_error of {show(self.piece)} is {self.max_abs_error:.3g}", f"0 to {self.tolerance:.3g}")


@dataclass(frozen=True)
class GoldenCase:
    """Stored inputs and outputs of one piece (safetensors), for repeating the comparison on the device."""

    piece: Literal["vision", "language"]
    inputs: str
    outputs: str
    description: str


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be."""

    bytes: int
    sha256: str
    """Lower-case hexadecimal."""

    def __post_init__(self) -> None:
        if self.bytes < 0:
            _refuse(f"bytes is {self.bytes}", "0 or more")
        if not _SHA256.fullmatch(self.sha256):
            _refuse(f"sha256 is {show(self.sha256)}", "64 lower-case hexadecimal digits")


@dataclass(frozen=True)
class Manifest:
    """The whole of `manifest.json`. `validate` checks what no single part can see."""

    format_version: int
    producer: str
    """Who wrote it ("hired-edge 0.1.0")."""
    family: str
    """ "llava" or "llava_next"."""
    checkpoint: str
    """A name, never a path."""
    target: Target
    text: TextModel
    vision: VisionModel
    quantisation: Quantisation
    limits: Limits
    vision_graph: Graph
    language_graph: Graph
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

    def referenced_files(self) -> Iterator[tuple[str, str]]:
        """Every (field, file) that names a file of the bundle."""
        for field in ("vision_graph", "language_graph"):
            graph: Graph = getattr(self, field)
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
            if name == MANIFEST_NAME or name.startswith(f"{ENGINES_FOLDER}/"):
                _refuse(f"manifest.files names {name}", "what the export wrote, and not the manifest itself")
        for field, name in self.referenced_files():
            if name not in self.files:
                _refuse(f"manifest.{field} is {show(name)}", "a file listed in manifest.files")
        for field in ("producer", "family", "checkpoint", "image_token"):
            if not getattr(self, field):
                _refuse(f"manifest.{field} is empty", "a name")
        if re.search(r"[/\\]", self.checkpoint):
            _refuse(f"manifest.checkpoint is {show(self.checkpoint)}", "a name without a path")
        self._check_limits()
        if self.memory != memory_plan(self):
            _refuse("manifest.memory is not what the limits and the files give", f"{memory_plan(self)}")
        for token in self.stop_token_ids:
            if not 0 <= token < self.text.vocab_size:
                _refuse(f"manifest.stop_token_ids holds {token}", f"0 to {self.text.vocab_size - 1}")
        return self

    def _check_limits(self) -> None:
        limits = self.limits
        try:
            derived = rederive(limits, self.vision.tiling)
        except InputError as error:
            _refuse(f"manifest.limits.budgets holds {error.got}", error.expected)
        for name in ("visual_tokens", "tiles"):
            if getattr(limits, name) != getattr(derived, name):
                _refuse(
                    f"manifest.limits.{name} is {getattr(limits, name)}",
                    f"{getattr(derived, name)}, by the budgets {', '.join(limits.budgets)} and the tiling",
                )
        if limits.max_sequence_length > self.text.positions:
            _refuse(
                f"manifest.limits.max_sequence_length is {limits.max_sequence_length}",
                f"at most {self.text.positions}, the length of the rotary tables",
            )


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


def _positive(obj: object, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        if value < 1:
            _refuse(f"{name} is {value}", "1 or more")


def _refuse(got: str, expected: str) -> NoReturn:
    raise BundleError(got, expected=expected, fix=MEND)
