"""What a manifest is made of: the model, its graphs, its files and what was checked, as frozen dataclasses.

Each knows the rules of its own fields; `hired_edge.manifest` those that span several.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from hired_edge.errors import BundleError
from hired_edge.preprocessing import PreprocessRules
from hired_edge.strict import MEND, optional, show
from hired_edge.tiling import TilingRules

Target = Literal["cpu", "cuda", "jp7", "jp6"]
Precision = Literal["fp32", "fp16", "int8", "int4"]
FloatType = Literal["float32", "float16"]
EmbeddingType = Literal["float32", "float16", "int8"]
Method = Literal["rtn", "hqq", "awq"]
VisionPrecision = Literal["float", "int8"]

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
        positive(self, "layers", "heads", "kv_heads", "head_dim", "hidden_size", "vocab_size", "positions")
        if self.sliding_window is not None:
            positive(self, "sliding_window")
        if self.heads % self.kv_heads:
            refuse(f"{self.heads} heads share {self.kv_heads} kv_heads", "a whole number of heads per kv head")


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
    keys: int | None = optional(None)
    """Width of `selection_keys`, the selection layer's keys, where the graph gives them (`--with-keys`)."""

    def __post_init__(self) -> None:
        positive(self, "layers")
        if self.keys is not None:
            positive(self, "keys")
        for name in ("allocation_layer", "selection_layer", "feature_layer"):
            layer = getattr(self, name)
            if not 0 <= layer < self.layers:
                refuse(f"{name} is {layer}", f"0 to {self.layers - 1}, since the tower has {self.layers} layers")
        if self.heads != "sum" and not re.fullmatch(r"0|[1-9][0-9]{0,5}", self.heads):
            refuse(f"heads is {show(self.heads)}", '"sum" or the number of a head')
        if self.preprocess.image_size != self.tiling.image_size:
            refuse(f"preprocess.image_size is {self.preprocess.image_size}", f"the tile's {self.tiling.image_size}")
        if min(self.preprocess.image_std) <= 0:
            refuse(f"preprocess.image_std is {self.preprocess.image_std}", "positive numbers")


@dataclass(frozen=True)
class Quantisation:
    """How the weights are stored. Always symmetric."""

    precision: Precision
    bits: int
    """Of the decoder's matrices."""
    block_size: int | None
    """Weights that share a scale, along the input axis; None for one scale per output channel, or for none at all."""
    lm_head_bits: int
    embedding_dtype: EmbeddingType
    """int8: rows of integers, with a float32 scale each."""
    method: Method = optional("rtn")  # noqa: RUF009 (it is a field)
    """How the scales of the blocks that were quantised at the export were chosen: by rounding to nearest, by
    half-quadratic search, or by activation-aware search over scaled inputs. A checkpoint's own 4 bits keep theirs."""
    calibration: str | None = optional(None)
    """The sha256 of the data set whose activations were looked at; None for none."""
    vision: VisionPrecision = optional("float")  # noqa: RUF009 (it is a field)
    """Products of the vision tower: in the activations' type, or of int8 weights and activations rounded to bytes."""

    def __post_init__(self) -> None:
        positive(self, "lm_head_bits")
        if self.bits != _BITS[self.precision]:
            refuse(f"bits is {self.bits} for {self.precision}", f"{_BITS[self.precision]}")
        if self.block_size is not None:
            positive(self, "block_size")
        if self.method != "rtn" and (self.precision != "int4" or self.block_size is None):
            refuse(f"method is {self.method} for {self.precision}", "rtn, where weights are not blocks of int4")
        if (self.calibration is not None) != (self.method == "awq"):
            refuse(
                f"calibration is {self.calibration} for method {self.method}", "a sha256 for awq, none for the others"
            )
        if self.calibration is not None and not _SHA256.fullmatch(self.calibration):
            refuse(f"calibration is {self.calibration!r}", "a sha256: 64 hexadecimal digits")


@dataclass(frozen=True)
class Graph:
    """One ONNX file."""

    file: str
    data: tuple[str, ...]
    """Its external data, as files of the bundle."""
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_sequence_length: int | None
    """Length of the cache that a language graph is made for; None = symbolic, fixed when the bundle is opened."""

    def __post_init__(self) -> None:
        positive(self, "opset")
        if self.max_sequence_length is not None:
            positive(self, "max_sequence_length")


@dataclass(frozen=True)
class PromptFiles:
    """The files that turn messages into token ids, and what goes around a picture."""

    tokenizer: str
    tokenizer_config: str
    chat_template: str
    generation_config: str | None
    image_start: str = optional("")
    """The special token in front of a picture's visual tokens, which no template writes; "" for none."""
    image_end: str = optional("")
    """The one behind them."""


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
            refuse(f"max_abs_error of {show(self.piece)} is {self.max_abs_error:.3g}", f"0 to {self.tolerance:.3g}")


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
            refuse(f"bytes is {self.bytes}", "0 or more")
        if not _SHA256.fullmatch(self.sha256):
            refuse(f"sha256 is {show(self.sha256)}", "64 lower-case hexadecimal digits")


def positive(obj: object, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        if value < 1:
            refuse(f"{name} is {value}", "1 or more")


def refuse(got: str, expected: str) -> NoReturn:
    raise BundleError(got, expected=expected, fix=MEND)
