"""Which engines serve an opening, and what is refused: by records alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hired_edge.budget import parse_budget
from hired_edge.engine_check import rebuild_command
from hired_edge.engine_record import FORMAT_VERSION, EngineFile, EngineRecord, Piece
from hired_edge.errors import BundleError
from hired_edge.limits import Limits, cache_lengths, resolve_opening
from hired_edge.manifest import Graph, Manifest
from hired_runtime.cache import CacheRules
from hired_runtime.trt.opening import choose
from hired_runtime.trt.profiles import Profile, language_profiles, longest_prompt, vision_profiles
from tests.tiny.manifests import example_manifest

BUNDLE = Path("my bundle")
INPUTS = ("inputs_embeds", "position_ids", "attention_mask", "write_indices", "last_token")


def manifest(batch: int = 2) -> Manifest:
    """LLaVA-NeXT-7B with a language graph for each of its two budgets."""
    made = example_manifest()
    names = CacheRules(made.text, 64).names
    graphs = tuple(
        Graph(f"language/model.{length}.onnx", (), 24, (*INPUTS, *names.past), ("logits", *names.present), length)
        for length in cache_lengths(made.limits, made.vision.tiling)
    )
    return replace(made, limits=replace(made.limits, batch=batch), language_graphs=graphs)


def engine(piece: Piece, graph: str, profiles: tuple[Profile, ...], slots: int | None) -> EngineFile:
    return EngineFile(piece, f"{piece}.{slots}.engine", 1, "0" * 64, graph, {graph: "0" * 64}, profiles, slots)


def record(made: Manifest, *, batch: int = 2, tiles: int = 5, one_profile: bool = False) -> EngineRecord:
    engines = [engine("vision", made.vision_graph.file, vision_profiles(336, tiles), None)]
    for graph in made.language_graphs:
        slots = graph.max_sequence_length
        assert slots is not None
        profiles: tuple[Profile, ...] = language_profiles(
            made.text,
            graph.inputs,
            batch=batch,
            prompt=longest_prompt(made.limits, slots),
            max_sequence_length=slots,
        )
        engines.append(engine("language", graph.file, profiles[1:] if one_profile else profiles, slots))
    return EngineRecord(FORMAT_VERSION, "hired-edge", "tensorrt", "10.16.2", 87, None, None, (), tuple(engines), None)


def opened(made: Manifest, budget: str, batch: int = 1) -> Limits:
    return resolve_opening(made.limits, made.vision.tiling, visual=parse_budget(budget), batch=batch)


def test_the_shortest_cache_that_is_long_enough() -> None:
    made = manifest()
    short, long = cache_lengths(made.limits, made.vision.tiling)
    for budget, slots in (("5%", short), ("0", short), ("20%", long), ("10%", long)):
        found = choose(record(made), made, opened(made, budget), BUNDLE)
        assert (found.slots, found.language.max_sequence_length) == (slots, slots)
        assert found.graph.max_sequence_length == slots
        assert (found.decode, found.prefill) == (0, 1)
        limits = opened(made, budget)
        assert found.prompt == limits.visual_tokens + limits.text_tokens


def test_a_longer_engine_serves_where_the_shorter_was_not_built() -> None:
    made = manifest()
    whole = record(made)
    partial = replace(whole, engines=(whole.engines[0], whole.engines[2]))
    assert choose(partial, made, opened(made, "5%"), BUNDLE).slots == whole.engines[2].max_sequence_length
    partial = replace(whole, engines=whole.engines[:2])
    assert f"of {whole.engines[1].max_sequence_length}; expected one for" in refusal(partial, made, opened(made, "20%"))


def test_one_profile_serves_decoding_and_prefill() -> None:
    made = manifest()
    found = choose(record(made, one_profile=True), made, opened(made, "20%", batch=2), BUNDLE)
    assert (found.decode, found.prefill) == (0, 0)


def test_what_was_built_for_less_is_refused_with_both_sizes() -> None:
    made = manifest()
    line = refusal(record(made, batch=1), made, opened(made, "20%", batch=2))
    assert "inputs_embeds up to (1, " in line
    assert "expected (2, 1, 4096)" in line
    line = refusal(record(made, tiles=3), made, opened(made, "20%"))
    assert "pixel_values up to (3, 3, 336, 336); expected (5, 3, 336, 336)" in line


def test_a_missing_engine_is_refused() -> None:
    made = manifest()
    whole = record(made)
    assert "no vision engine" in refusal(replace(whole, engines=whole.engines[1:]), made, opened(made, "5%"))
    line = refusal(replace(whole, engines=whole.engines[:1]), made, opened(made, "5%"))
    assert "language engines for a max_sequence_length of none" in line


def test_profiles_without_an_input_of_the_graph_are_refused() -> None:
    """A record's own rules do not know the graphs' inputs."""
    made = manifest()
    whole = record(made)
    bare = replace(whole, engines=tuple(replace(engine, profiles=({},)) for engine in whole.engines))
    assert "pixel_values no such input" in refusal(bare, made, opened(made, "5%"))


def refusal(built: EngineRecord, made: Manifest, limits: Limits) -> str:
    with pytest.raises(BundleError) as error:
        choose(built, made, limits, BUNDLE)
    line = str(error.value)
    assert line.endswith(rebuild_command(BUNDLE))
    assert "\n" not in line
    return line


def test_a_record_that_leaves_a_source_out_is_refused() -> None:
    made = manifest()
    graphs = tuple(replace(graph, data=("language/model.onnx.data",)) for graph in made.language_graphs)
    with pytest.raises(BundleError, match=r"made from language/model\.\d+\.onnx; expected .*model\.onnx\.data"):
        choose(record(made), replace(made, language_graphs=graphs), opened(made, "20%"), BUNDLE)
