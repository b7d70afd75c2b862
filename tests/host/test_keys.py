"""`--with-keys`: the vision graph's third output is the selection layer's keys, and PruMerge merges by them.

The reference is transformers: what the layer's `k_proj` gives, seen by a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hired_edge.bundle import Bundle, read_manifest, write_manifest
from hired_edge.errors import InputError
from hired_edge.plan import memory_plan
from hired_edge.selection import select
from hired_edge.tensorfile import TensorFile, write_tensors
from hired_export import exporter, parity
from hired_export.activation_aware.pictures import kept_features
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import ExportOptions, export
from hired_export.families import AttentionChoice, read_spec
from hired_export.references import References
from hired_export.shipped import Seeded
from hired_export.sources import Sources
from hired_export.targets import TARGETS, schemes
from hired_export.vision_check import ROUNDED_TOLERANCE, outputs
from hired_export.writing import Writing
from hired_runtime.pipeline import Timings
from hired_runtime.prompt import question
from tests.host.bundles import Bundles, Lock, options, traced_language, traced_vision
from tests.host.reference import TOLERANCE, Measure, Reference, opened, picture, taken
from tests.tiny.checkpoints import load_reference
from tests.tiny.commands import Capture, accepted, refused, refused_in_the_end

ReferenceOf = Callable[[str], Reference]
WIDTH = 32
PROMPT = "What is on the table?"


@pytest.fixture
def with_keys(bundles: Bundles) -> Path:
    """next-llama exported with the keys of an early layer, once for all workers."""
    out = bundles.root / "with-keys"
    with Lock(bundles.root / "with-keys.lock"):
        if not out.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(exporter, "language_graph", traced_language)
                patch.setattr(exporter, "vision_graph", traced_vision)
                chosen = options("next-llama", attention=AttentionChoice(0, 1, keys=True))
                export(bundles.checkpoint("next-llama"), out, chosen, check=parity.check)
    return out


@torch.inference_mode()
def hooked(model: Any, layer: int, pixels: NDArray) -> NDArray[np.float32]:
    """transformers' keys of a layer's patches, (T, N, W), heads side by side."""
    tower, seen = model.model.vision_tower, []
    projection = getattr(tower, "vision_model", tower).encoder.layers[layer].self_attn.k_proj
    hook = projection.register_forward_hook(lambda module, inputs, output: seen.append(output))
    tower(torch.from_numpy(pixels))
    hook.remove()
    return seen[0][:, 1:].numpy()


def excess(got: NDArray, expected: NDArray) -> float:
    """The largest error, in the largest value."""
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.slow  # three graphs to be traced; an early layer's are in the bundle below
@pytest.mark.parametrize(
    ("attention", "target", "vision", "tolerance"),
    [
        (AttentionChoice(keys=True), "cpu", None, 1e-5),
        (AttentionChoice(1, 4, "2", keys=True), "cpu", None, 1e-5),
        (AttentionChoice(keys=True), "cpu", "int8", ROUNDED_TOLERANCE / 4),
        (AttentionChoice(keys=True), "cuda", None, 1e-2),
    ],
    ids=["default", "behind the features", "int8", "fp16"],
)
def test_keys_are_those_of_the_selection_layer(
    attention: AttentionChoice,
    target: Any,
    vision: str | None,
    tolerance: float,
    bundles: Bundles,
    tmp_path: Path,
    measure: Measure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The vision graph alone, as it is written for a target; one head of the attention is all heads of the keys."""
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)
    folder = bundles.checkpoint("next-llama")
    checkpoint = Checkpoint(folder)
    spec = read_spec(checkpoint, attention)
    _, stored = schemes(target, "fp16" if target == "cuda" else "fp32", None, vision=vision)
    model = exporter.lowered_vision(spec, stored, TARGETS[target])
    Writing(tmp_path, Sources(checkpoint, spec), stored, None, lambda count: None).vision(model)
    pixels, path = Seeded(spec).pixels, tmp_path / "vision/model.onnx"
    got = outputs(path, pixels.astype(stored.dtype))
    assert list(got) == ["image_features", "allocation_attention", "selection_attention", "selection_keys"]
    assert got["selection_keys"].dtype == np.float32
    expected = hooked(load_reference(folder), spec.vision.selection_layer, pixels)
    measure(f"selection_keys {target} {vision}", got["selection_keys"], expected)
    assert excess(got["selection_keys"], expected) <= tolerance
    if vision == "int8":  # but for rounded activations it is the tower with rounded weights
        unrounded = outputs(path, pixels, as_shipped=False)["selection_keys"]
        with torch.inference_mode():
            rounded = References(checkpoint, spec, stored).vision(torch.from_numpy(pixels))[3].numpy()
        assert excess(unrounded, rounded) <= 1e-5 < excess(rounded, expected)


def test_the_manifest_says_so(with_keys: Path, bundles: Bundles, tmp_path: Path) -> None:
    """And what they take of memory; a bundle without them says nothing."""
    manifest, plain = Bundle.open(with_keys).manifest, read_manifest(bundles("next-llama").bundle)
    assert (manifest.vision.keys, plain.vision.keys) == (WIDTH, None)
    assert manifest.vision_graph.outputs == (*plain.vision_graph.outputs, "selection_keys")
    assert read_manifest(with_keys) == manifest
    names = {check.piece for check in manifest.parity}
    assert "vision.selection_keys" in names
    assert names - {check.piece for check in plain.parity} == {"vision.selection_keys"}
    limits = plain.limits
    patches = limits.images * limits.tiles * plain.vision.tiling.patches_per_tile
    assert manifest.memory.buffers - plain.memory.buffers == 4 * patches * WIDTH
    assert memory_plan(manifest) == manifest.memory


def test_the_engine_gives_them_for_every_tile_of_every_picture(with_keys: Path, references: ReferenceOf) -> None:
    model, _ = opened(with_keys, images=2)
    reference = references("next-llama")
    images = [picture(107, 80, seed=1), picture(30, 170, seed=2)]
    seen = model.pipeline.see(images, model.pipeline._default_budget, None, Timings())
    for image, maps in zip(images, seen.maps, strict=True):
        pixels = reference.inputs(question(PROMPT, 1), [image])["pixel_values"][0].numpy()
        assert maps.keys is not None
        expected = hooked(reference.model, model.pipeline.manifest.vision.selection_layer, pixels)
        assert excess(maps.keys, expected) <= 1e-5


@pytest.mark.parametrize("policy", ["prumerge", "prumerge+"])
def test_prumerge_is_what_it_makes_of_transformers_own_features(
    policy: str, with_keys: Path, references: ReferenceOf, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept tokens, and the logits of transformers' language model fed with the merged rows."""
    model, recorder = opened(with_keys)
    reference, image = references("next-llama"), picture(150, 60, seed=3)
    answer = model.ask(PROMPT, [image], policy=policy, visual_tokens=80, max_new_tokens=6)
    (selection,) = answer.selections
    inputs = reference.inputs(question(PROMPT, 1), [image])
    features, maps = reference.vision(inputs)
    vision = model.pipeline.manifest.vision
    keys = hooked(reference.model, vision.selection_layer, inputs["pixel_values"][0].numpy())
    attention = [maps[layer].sum(1) for layer in (vision.allocation_layer, vision.selection_layer)]
    (theirs,) = select([selection.tiling], [attention[0]], [attention[1]], 80, policy, keys=[keys])
    assert selection.gather.tolist() == theirs.gather.tolist()
    assert 0 < selection.kept < selection.eligible
    merge = theirs.merge
    assert merge is not None
    flat = features.flatten(0, 1)
    sums = torch.zeros_like(flat)
    sums.index_add_(0, torch.from_numpy(merge.target), torch.from_numpy(merge.weight)[:, None] * flat[merge.source])
    assert torch.abs(sums - flat)[theirs.gather[theirs.gather >= 0]].max() > 100 * TOLERANCE
    monkeypatch.setattr(reference, "vision", lambda inputs: (sums.reshape(features.shape), maps))
    expected = reference.continued(reference.spliced(inputs, selection), answer.tokens)
    assert measure(policy, taken(recorder), expected) <= TOLERANCE


def test_a_bundle_without_keys_refuses_the_policies_that_read_them(bundles: Bundles) -> None:
    model, _ = opened(bundles("next-llama").bundle)
    for policy in ("prumerge", "prumerge+"):
        with pytest.raises(InputError, match=r"gives no keys; .*; export the checkpoint again with --with-keys, or"):
            model.ask(PROMPT, [picture(107, 80)], policy=policy, visual_tokens="40%")
        assert model.ask(PROMPT, [picture(107, 80)], policy=policy, visual_tokens="100%", max_new_tokens=1).tokens


@pytest.mark.parametrize("target", ["jp6", "jp7"])
def test_boards_get_none(target: Any, tmp_path: Path, capsys: Capture) -> None:
    """Before the checkpoint is looked for."""
    with pytest.raises(InputError, match=f"--with-keys for --target {target}; expected --target cpu"):
        export(tmp_path / "none", tmp_path / "out", ExportOptions(target=target, attention=AttentionChoice(keys=True)))
    line = refused(capsys, "export", tmp_path / "none", tmp_path / "out", "--target", target, "--with-keys")
    assert line.endswith("leave --with-keys out, or choose that target")
    assert not list(tmp_path.iterdir())


def test_calibration_keeps_the_same_with_keys(bundles: Bundles, tmp_path: Path) -> None:
    """Quantisation by activations reads the same references: a fourth output is nothing to it."""
    picture(107, 80).save(tmp_path / "picture.png")
    checkpoint = Checkpoint(bundles.checkpoint("next-llama"))
    vision = read_manifest(bundles("next-llama").bundle).vision
    found = []
    for keys in (False, True):
        spec = read_spec(checkpoint, AttentionChoice(keys=keys))
        references = References(checkpoint, spec, schemes("cpu", "fp32", None)[1])
        with torch.inference_mode():
            rules = vision.tiling, vision.preprocess
            found.append(kept_features(tmp_path / "picture.png", references, *rules, np.zeros(64, np.float32), "20%"))
    np.testing.assert_array_equal(found[0], found[1])


def verified(lines: Sequence[str]) -> list[str]:
    return [line.split(":")[0].removeprefix("golden  ") for line in lines if line.startswith("golden")]


def test_verify_replays_them(with_keys: Path, tmp_path: Path, capsys: Capture) -> None:
    assert "vision selection_keys" in verified(accepted(capsys, "verify", with_keys).splitlines())
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    for path in with_keys.rglob("*"):
        beside = spoiled / path.relative_to(with_keys)
        beside.mkdir() if path.is_dir() else beside.write_bytes(path.read_bytes())
    golden = spoiled / "golden/vision.outputs.safetensors"
    file = TensorFile(golden)
    tensors = {name: file.read(name).copy() for name in file.names}
    tensors["selection_keys"][1, 3, 5] += 0.1 * np.abs(tensors["selection_keys"]).max()
    write_tensors(golden, tensors)
    write_manifest(spoiled, read_manifest(with_keys))
    assert "vision selection_keys differs from its golden output by" in refused_in_the_end(capsys, "verify", spoiled)
