"""The manifest: a round trip, the version gate, the rules across fields, and random mutations."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge import strict
from hired_edge.errors import BundleError
from hired_edge.filenames import beside, check_file_name
from hired_edge.manifest import FORMAT_VERSION, Manifest, Quantisation, parse_manifest
from tests.tiny.manifests import example_manifest

MANIFEST = example_manifest()
TEXT = strict.dumps(MANIFEST)


def changed(*path_and_value: Any) -> str:
    *path, value = path_and_value
    data = json.loads(TEXT)
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return json.dumps(data)


def test_round_trip_to_the_byte() -> None:
    manifest = parse_manifest(TEXT)
    assert manifest == MANIFEST
    assert strict.dumps(manifest) == TEXT


def test_how_scales_were_chosen_is_said_where_it_is_not_by_rounding() -> None:
    """So bundles from before stay as they are, byte for byte."""
    plain = replace(MANIFEST.quantisation, precision="int4", bits=4, block_size=32)
    assert not {"method", "calibration"} & set(strict.to_json(plain))
    awq = replace(plain, method="awq", calibration="0" * 64)
    for quantisation in (plain, awq):
        assert strict.from_json(Quantisation, strict.to_json(quantisation)) == quantisation
    for other in ({"method": "hqq", "block_size": None}, {"method": "awq", "precision": "int8", "bits": 8}):
        with pytest.raises(BundleError, match="method is "):
            replace(plain, **other)
    for other in ({"calibration": "0" * 64}, {"method": "awq"}, {"method": "awq", "calibration": "no hash"}):
        with pytest.raises(BundleError, match="calibration is "):
            replace(plain, **other)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", True, 1.0, None, [], {}])
def test_another_version_is_refused_before_anything_else(version: object) -> None:
    text = json.dumps({"format_version": version, "a field of the future": 1})
    with pytest.raises(BundleError, match=rf"format_version is .*; expected {FORMAT_VERSION}; install the hired-edge"):
        parse_manifest(text)


@pytest.mark.parametrize("text", ["{}", "[]", "1", "null", '"x"'])
def test_without_a_version(text: str) -> None:
    with pytest.raises(BundleError, match="format_version is None"):
        parse_manifest(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("unknown", 1), "unknown key"),
        (("target", "tpu"), "manifest.target is 'tpu'"),
        (("text", "kv_heads", 5), "32 heads share 5 kv_heads"),
        (("text", "layers", 0), "layers is 0"),
        (("text", "sliding_window", -1), "sliding_window is -1"),
        (("text", "cache", "paged"), "manifest.text.cache"),
        (("text", "positions", 900), "max_sequence_length is 960; expected at most 900"),
        (("vision", "selection_layer", 24), "selection_layer is 24"),
        (("vision", "allocation_layer", -1), "allocation_layer is -1"),
        (("vision", "heads", "mean"), "heads is 'mean'"),
        (("vision", "heads", "01"), "heads is '01'"),
        (("vision", "tiling", "kind", "spiral"), "manifest.vision.tiling: "),
        (("vision", "tiling", "patch_size", 0), "manifest.vision.tiling: "),
        (("vision", "preprocess", "image_size", 224), "preprocess.image_size is 224"),
        (("vision", "preprocess", "image_std", [0.5, 0, 0.5]), "image_std"),
        (("quantisation", "bits", 8), "bits is 8 for int4; expected 4"),
        (("limits", "visual_tokens", 577), "max_sequence_length is 960 by the formula"),
        (("limits", "tiles", 6), "manifest.limits.tiles is 6; expected 5"),
        (("limits", "batch", 0), "batch is 0"),
        (("limits", "budgets", []), "no budget"),
        (("limits", "budgets", ["40%"]), "manifest.limits.visual_tokens is 576; expected 1152"),
        (("limits", "budgets", ["lots"]), "manifest.limits.budgets"),
        (("limits", "formula", "trust me"), "by the formula 'trust me'"),
        (("embedding", "elsewhere.safetensors"), "manifest.embedding"),
        (("language_graphs", 0, "data", ["../weights"]), "manifest.language_graphs[0].data[0]"),
        (("language_graphs", 0, "max_sequence_length", 960), "max_sequence_length [960]; expected null, or [576, 960]"),
        (("language_graphs", 0, "max_sequence_length", 0), "max_sequence_length is 0"),
        (("language_graphs", []), "made for max_sequence_length []"),
        (("prompt", "generation_config", "generation_config.json"), "manifest.prompt.generation_config"),
        (("checkpoint", "models/llava"), "manifest.checkpoint"),
        (("checkpoint", ""), "manifest.checkpoint is empty"),
        (("stop_token_ids", [32064]), "holds 32064; expected 0 to 32063"),
        (("parity", 0, "max_abs_error", 0.5), "max_abs_error"),
        (("files", "embedding.safetensors", "sha256", "A" * 64), "sha256 is"),
        (("files", "embedding.safetensors", "bytes", -1), "bytes is -1"),
        (("files", "../outside", {"bytes": 1, "sha256": "0" * 64}), "the file name '../outside'"),
        (("files", "manifest.json", {"bytes": 1, "sha256": "0" * 64}), "manifest.files names manifest.json"),
        (("files", "engines/x", {"bytes": 1, "sha256": "0" * 64}), "manifest.files names engines/x"),
    ],
)
def test_broken_rules_are_refused(change: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(changed(*change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a", "a/b.c", "language/model.onnx.data", "_x", "engines", "a+b-c_d.1", "a" * 255])
def test_good_file_names(name: str) -> None:
    assert check_file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/./b",
            ".a",
            "a\\b",
            "C:a",
            "a\n",
            "a\0",
            "é",
            "-a",
            "a b",
        ),
        *("a" * 256, "/".join("a" * 1000)),
    ],
)
def test_bad_file_names(name: str) -> None:
    with pytest.raises(BundleError, match="not allowed"):
        check_file_name(name)


def test_a_location_is_relative_to_its_graph() -> None:
    assert beside("language/model.onnx", "model.onnx.data") == "language/model.onnx.data"
    assert beside("model.onnx", "data/w") == "data/w"
    with pytest.raises(BundleError):
        beside("language/model.onnx", "../vision/w")


def read_or_refuse(text: str) -> Manifest | BundleError:
    try:
        return parse_manifest(text)
    except BundleError as error:
        return error


def _paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [path] * bool(path) + [found for key in keys for found in _paths(data[key], (*path, key))]


PATHS = _paths(json.loads(TEXT))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../x", "20%", "0.000000001%", "101%", [], {}, [[]], [1], ["a"], [[336, 0]], [[336, 336]] * 3]),
)


@settings(deadline=None, max_examples=500)
@given(path=st.sampled_from(PATHS), value=VALUES, action=st.sampled_from(["set", "set", "delete", "add"]))
def test_a_mutated_manifest_is_read_or_refused(path: tuple[Any, ...], value: object, action: str) -> None:
    data = copy.deepcopy(json.loads(TEXT))
    target = data
    for key in path[:-1]:
        target = target[key]
    if action == "delete":
        del target[path[-1]]
    elif action == "set" or not isinstance(target, dict):
        target[path[-1]] = value
    else:
        target[str(value)] = value
    outcome = read_or_refuse(json.dumps(data))
    if isinstance(outcome, Manifest):
        assert parse_manifest(strict.dumps(outcome)) == outcome
    else:
        assert outcome.expected
        assert outcome.fix
        assert "\n" not in str(outcome)


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, len(TEXT) - 1), character=st.characters(), length=st.integers(0, 20))
def test_mutated_text_is_read_or_refused(position: int, character: str, length: int) -> None:
    text = TEXT[:position] + character + TEXT[position + length :]
    assert "\n" not in str(read_or_refuse(text))
