"""Which of a machine's engines serve an opening, and whether they were built large enough. Arithmetic on records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hired_edge.engine_check import rebuild_command
from hired_edge.engine_record import EngineFile, EngineRecord
from hired_edge.errors import BundleError
from hired_edge.limits import Limits
from hired_edge.manifest import Graph, Manifest
from hired_runtime.trt.addresses import LanguageAddresses, Shape
from hired_runtime.trt.profiles import fitting, longest_prompt


@dataclass(frozen=True)
class Opening:
    """What is loaded.

    Attributes:
        graph: the language graph that `language` was built from.
        addresses: of its buffers.
        prompt: tokens of the longest prefill.
        decode, prefill: profiles of the language engine; one and the same where it has only one.
    """

    vision: EngineFile
    language: EngineFile
    graph: Graph
    addresses: LanguageAddresses
    prompt: int
    decode: int
    prefill: int

    @property
    def slots(self) -> int:
        return self.addresses.rules.slots


def choose(record: EngineRecord, manifest: Manifest, limits: Limits, bundle: Path) -> Opening:
    """The vision engine, and the language engine with the shortest cache that is long enough.

    Raises:
        BundleError: none was built, or for fewer rows, tokens or tiles; with the command that builds it.
    """
    vision = record.engine(manifest.vision_graph.file)
    if vision is None:
        raise _not_built("no vision engine", "one", bundle)
    side = manifest.vision.tiling.image_size
    _hold(vision, {"pixel_values": (limits.tiles, 3, side, side)}, bundle)
    graph, language = _language(record, manifest, limits, bundle)
    for engine, source in ((vision, manifest.vision_graph), (language, graph)):
        _check_sources(engine, source, bundle)
    assert language.max_sequence_length is not None  # a record's own rule
    prompt = longest_prompt(limits, language.max_sequence_length)
    addresses = LanguageAddresses(
        manifest.text, graph.inputs, batch=limits.batch, tokens=prompt, slots=language.max_sequence_length
    )
    return Opening(
        vision=vision,
        language=language,
        graph=graph,
        addresses=addresses,
        prompt=prompt,
        decode=_hold(language, addresses.shapes(limits.batch, 1), bundle),
        prefill=_hold(language, addresses.shapes(limits.batch, prompt), bundle),
    )


def _language(record: EngineRecord, manifest: Manifest, limits: Limits, bundle: Path) -> tuple[Graph, EngineFile]:
    lengths = []
    for graph in manifest.language_graphs:  # ascending
        engine = record.engine(graph.file)
        length = engine.max_sequence_length if engine is not None else None
        if engine is not None and length is not None:
            if length >= limits.max_sequence_length:
                return graph, engine
            lengths.append(str(length))
    raise _not_built(
        f"language engines for a max_sequence_length of {', '.join(lengths) or 'none'}",
        f"one for {limits.max_sequence_length} or more, by {limits.formula}",
        bundle,
    )


def _check_sources(engine: EngineFile, graph: Graph, bundle: Path) -> None:
    """A record names every file that its graph reads: one left out could have changed since."""
    expected = {graph.file, *graph.data}
    if engine.sources.keys() != expected:
        named, wanted = (", ".join(sorted(names)) for names in (engine.sources.keys(), expected))
        raise _not_built(f"{engine.file} made from {named}", wanted, bundle)


def _hold(engine: EngineFile, shapes: dict[str, Shape], bundle: Path) -> int:
    """The first profile that takes these inputs."""
    number = fitting(engine.profiles, shapes)
    if number is not None:
        return number
    for name, shape in shapes.items():
        largest = engine.profiles[-1].get(name)
        if largest is None or not largest.holds(shape):
            up_to = "no such input" if largest is None else f"up to {largest.max}"
            raise _not_built(f"{engine.file} with {name} {up_to}", f"{shape}, for what is opened", bundle)
    raise _not_built(f"{engine.file} without a profile for all its inputs at once", "one", bundle)


def _not_built(got: str, expected: str, bundle: Path) -> BundleError:
    return BundleError(
        f"the engines of {bundle} have {got}",
        expected=expected,
        fix=f"ask for less, or build for it (its options: hired-edge build --help): {rebuild_command(bundle)}",
    )
