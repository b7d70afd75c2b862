"""`engines/<folder>/engine.json`: what a machine built from a bundle's graphs, as frozen dataclasses.

A serialised engine is as trusted as native code, and fits one TensorRT version and one SM. So a record lies beside it,
outside the manifest, and `hired_edge.engine_check` holds it against the bundle before anything is deserialised. This
module knows the record's rules; it touches no file and no GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from hired_edge import strict
from hired_edge.errors import BundleError
from hired_edge.filenames import check_file_name, signature_name
from hired_edge.strict import show

FORMAT_VERSION = 1
RECORD_NAME = "engine.json"

Module = Literal["tensorrt", "tensorrt_rtx"]
Piece = Literal["vision", "language"]
REBUILD = "build the engines again on the machine that runs them: hired-edge build BUNDLE --force"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]+(\.[0-9A-Za-z_+]+)*")


@dataclass(frozen=True)
class ShapeRange:
    """One input's shapes in one profile: the smallest, the one that kernels are tuned for, and the largest."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max):
            _refuse(f"shapes {self.min}, {self.opt}, {self.max}", "three shapes of one rank")
        if not all(1 <= low <= best <= high for low, best, high in zip(self.min, self.opt, self.max, strict=True)):
            _refuse(f"shapes {self.min}, {self.opt}, {self.max}", "1 <= min <= opt <= max in every dimension")

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether an input of this shape can run in this profile."""
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True)
class GoldenCheck:
    """The bundle's golden outputs, replayed through these engines."""

    result: Literal["passed", "failed"]
    largest_errors: dict[str, float]
    """Output ("language logits") -> largest absolute difference, of those that were compared."""
    tolerances: dict[str, float]
    """What was allowed, of the same outputs."""
    reason: str
    """Why it failed; empty if it passed."""

    def __post_init__(self) -> None:
        if self.largest_errors.keys() != self.tolerances.keys():
            _refuse("a check whose errors and tolerances are of different outputs", "a tolerance for each error")
        within = all(0 <= error <= self.tolerances[name] for name, error in self.largest_errors.items())
        if self.result == "passed" and (self.reason or not within or not self.largest_errors):
            _refuse("a check that passed with nothing compared, an error over its tolerance, or a reason", "none of it")
        if self.result == "failed" and not self.reason:
            _refuse("a check that failed without a reason", "the reason")


@dataclass(frozen=True)
class EngineFile:
    """One serialised engine."""

    piece: Piece
    file: str
    """Its name, in the folder of the record."""
    bytes: int
    sha256: str
    graph: str
    """The bundle's ONNX file that it was built from."""
    sources: dict[str, str]
    """sha256 of that file and of its external data, by their names in the bundle."""
    profiles: tuple[dict[str, ShapeRange], ...]
    """Of a language engine: decoding (S = 1), then prefill, which serves for both where there is no other."""
    max_sequence_length: int | None
    """Of a language engine: M, the slots of its cache; None for vision."""

    def __post_init__(self) -> None:
        if "/" in check_file_name(self.file) or self.file in (RECORD_NAME, signature_name(RECORD_NAME)):
            _refuse(f"the engine file {show(self.file)}", "a file beside the record")
        if self.bytes < 1:
            _refuse(f"bytes is {self.bytes}", "1 or more")
        for name, digest in [("sha256", self.sha256), *self.sources.items()]:
            if not _SHA256.fullmatch(digest):
                _refuse(f"the sha256 of {show(name)} is {show(digest)}", "64 lower-case hexadecimal digits")
        if self.graph not in self.sources:
            _refuse(f"sources do not name {show(self.graph)}", "the graph and its data")
        if not self.profiles:
            _refuse("no profile", "at least one")
        slots = self.max_sequence_length
        if (self.piece == "language") != (slots is not None) or (slots is not None and slots < 1):
            _refuse(
                f"max_sequence_length of a {self.piece} engine is {slots}", "1 or more for language, null for vision"
            )


@dataclass(frozen=True)
class EngineRecord:
    """The whole of `engine.json`."""

    format_version: int
    producer: str
    """ "hired-edge 0.1.0"."""
    module: Module
    version: str
    """The module's, whole ("10.16.2.10")."""
    sm: int
    """10 * major + minor of the compute capability: 87 for an Orin."""
    device: str | None
    """The GPU's name; None where there was none."""
    driver: str | None
    """The driver's CUDA version ("13.2"), or None."""
    flags: tuple[str, ...]
    """What was switched on or off in the builder ("REQUIRE_USER_ALLOCATION", "-TF32")."""
    engines: tuple[EngineFile, ...]
    check: GoldenCheck | None
    """None: not run, since there was no GPU when the engines were built."""

    def __post_init__(self) -> None:
        if not _VERSION.fullmatch(self.version):
            _refuse(f"version is {show(self.version)}", 'a version such as "10.16.2"')
        if not 10 <= self.sm <= 999:
            _refuse(f"sm is {self.sm}", "10 * major + minor, such as 87")
        names = [engine.file for engine in self.engines]
        if not names or len(set(names)) != len(names):
            _refuse(f"engines are {', '.join(names) or 'none'}", "one or more, each with a file of its own")
        keys = [(engine.piece, engine.max_sequence_length) for engine in self.engines]
        if len(set(keys)) != len(keys):
            _refuse("two engines for one piece and length", "one for each")

    def engine(self, graph: str) -> EngineFile | None:
        """The engine that was built from this graph file of the bundle, if there is one."""
        return next((engine for engine in self.engines if engine.graph == graph), None)


def folder_name(sm: int, module: str, version: str) -> str:
    """The folder below `engines/`: "sm87-tensorrt10.16.2". Three places of the version; the record holds it whole."""
    return f"sm{sm}-{module}{'.'.join(version.split('.')[:3])}"


def parse_record(text: str, where: str = RECORD_NAME) -> EngineRecord:
    """Read `engine.json`; the version is checked before anything else is looked at.

    Raises:
        BundleError: not JSON, another format version, or a rule of the record is broken.
    """
    try:
        data = strict.loads(text, where)
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            _refuse(f"{where}: format_version is {show(version)}", f"{FORMAT_VERSION}")
        return strict.from_json(EngineRecord, data, where)
    except BundleError as error:  # what mends a record is a build, not a copy
        raise BundleError(error.got, expected=error.expected, fix=REBUILD) from None


def _refuse(got: str, expected: str) -> NoReturn:
    raise BundleError(got, expected=expected, fix=REBUILD)
