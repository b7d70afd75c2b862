"""Phi-3 as the text model: fused matrices are split as they are read, and what comes out is transformers' answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hired_edge.bundle import Bundle
from hired_edge.errors import CheckpointError
from hired_export import fused, parity
from hired_export.activation_aware.calibrate import PLAIN, CalibrationJob, calibrate
from hired_export.activation_aware.folding import FOLDS
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import export
from hired_export.families import AttentionChoice, read_spec
from hired_export.quantisation import Scheme
from hired_export.references import References
from hired_runtime.prompt import question
from tests.host.bundles import Bundles, marked, options
from tests.host.near_ties import check_same, unrounded
from tests.host.reference import TOLERANCE, Measure, Reference, opened, picture, taken
from tests.tiny.packed import METHODS, Method, pack_checkpoint
from tests.tiny.questions import write_questions

References_ = Callable[[str], Reference]
PROMPT = "What is shown in this picture?"
NEW_TOKENS = 20
QKV = "language_model.model.layers.1.self_attn.qkv_proj.weight"


@pytest.mark.parametrize("name", marked(("llava-phi3", "next-phi3-window")))
@pytest.mark.parametrize("budget", ["100%", "33.3%"])
def test_answers(name: str, budget: str, bundles: Bundles, references: References_, measure: Measure) -> None:
    model, recorder = opened(bundles(name).bundle)
    reference = references(name)
    for size in ((107, 80), (30, 170), (56, 56)):
        image = picture(*size)
        answer = model.ask(PROMPT, [image], max_new_tokens=NEW_TOKENS, visual_tokens=budget)
        inputs = reference.inputs(question(PROMPT, 1), [image])
        expected = reference.continued(reference.spliced(inputs, answer.selections[0]), answer.tokens)
        assert measure(f"{name} {size} {budget}", taken(recorder), expected) <= TOLERANCE
        assert answer.tokens == expected.argmax(axis=1).tolist()
        if budget == "100%":
            assert answer.selections[0].visual_tokens == reference.placeholders(inputs)
            assert answer.tokens == reference.generate(inputs, NEW_TOKENS)
            np.testing.assert_allclose(reference.logits(inputs, answer.tokens), expected, atol=TOLERANCE)


@pytest.mark.slow
def test_the_window_counts(bundles: Bundles, references: References_) -> None:
    """The windowed bundle equals transformers (above); transformers without the window says something else."""
    name = "next-phi3-window"
    assert Bundle.open(bundles(name).bundle).manifest.text.sliding_window == 24
    reference = references(name)
    inputs = reference.inputs(question(PROMPT, 1), [picture(107, 80)])
    windowed = reference.logits(inputs, [0])
    whole = Reference(bundles.checkpoint(name))
    whole.model.config.text_config.sliding_window = whole.model.model.language_model.config.sliding_window = None
    assert np.abs(whole.logits(inputs, [0]) - windowed).max() > 100 * TOLERANCE


def test_a_window_that_no_sequence_outgrows_is_none(bundles: Bundles) -> None:
    assert read_spec(Checkpoint(bundles.checkpoint("llava-phi3")), AttentionChoice()).decoder.sliding_window == 2047
    assert Bundle.open(bundles("llava-phi3").bundle).manifest.text.sliding_window is None


def test_parts_are_rows_of_the_whole(bundles: Bundles) -> None:
    """Queries, keys and values of grouped heads; gate, then up. Nothing fused is left."""
    folder = bundles.checkpoint("phi3-cpu-fp32")
    stored = load_file(folder / "model.safetensors")
    tensors = Checkpoint(folder).tensors
    assert not [name for name in tensors if "qkv" in name or "gate_up" in name]
    qkv, gate_up = (
        stored[f"language_model.model.layers.0.{name}.weight"].numpy()
        for name in ("self_attn.qkv_proj", "mlp.gate_up_proj")
    )
    expected = {
        "self_attn.q_proj": qkv[:128],
        "self_attn.k_proj": qkv[128:192],
        "self_attn.v_proj": qkv[192:],
        "mlp.gate_proj": gate_up[:128],
        "mlp.up_proj": gate_up[128:],
    }
    for name, rows in expected.items():
        tensor = tensors[f"text.layers.0.{name}.weight"]
        assert tensor.shape == rows.shape
        np.testing.assert_array_equal(tensor.rows(0, len(rows)), rows)
        np.testing.assert_array_equal(tensor.rows(3, 7), rows[3:7])
    whole = "text.layers.0.mlp.gate_up_proj.weight"
    assert fused.parts_of("phi3", whole) == ("text.layers.0.mlp.gate_proj.weight", "text.layers.0.mlp.up_proj.weight")
    assert fused.parts_of("phi3", "text.layers.0.mlp.down_proj.weight") == fused.parts_of("mistral", whole) == ()


REFUSED = {
    "a part of another size": (
        {},
        lambda t: t.update({QKV: torch.zeros(100, 128)}),
        "tensor text.layers.1.self_attn.qkv_proj.weight has shape (100, 128); expected (256, 128), from config.json",
    ),
    "fused matrices of another text model": (
        {"model_type": "mistral"},
        lambda t: None,
        "expected a text model with fused matrices, where config.json says mistral",
    ),
    "angles that change with the prompt": (
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 16,
                "long_factor": [2.0] * 16,
            }
        },
        lambda t: None,
        "rotary scaling 'longrope', which changes every angle as the prompt grows; expected default",
    ),
    "a part of each head turned": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        lambda t: None,
        "partial_rotary_factor 0.5; expected 1.0",
    ),
    "no base of the angles": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": None}},
        lambda t: None,
        "'rope_theta': None, 'partial_rotary_factor': 1.0} (unsupported operand",
    ),
    "a base that no number can be divided by": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 0.0}},
        lambda t: None,
        "'rope_theta': 0.0, 'partial_rotary_factor': 1.0}; expected numbers that give angles",
    ),
    "a width of heads that is null": (
        {"head_dim": None},
        lambda t: None,
        "config.json says text_config.head_dim None; expected a positive even number",
    ),
    "a missing matrix": ({}, lambda t: t.pop(QKV), "no tensor text.layers.1.self_attn.q_proj.weight"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, bundles: Bundles, tmp_path: Path) -> None:
    changes, spoil, message = REFUSED[name]
    folder = Path(shutil.copytree(bundles.checkpoint("phi3-cpu-fp32"), tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        export(folder, tmp_path / "out", options("phi3-cpu-fp32"))
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


QUESTIONS = [("What is it?", picture(107, 80)), ("Read the sign.", picture(30, 170)), ("And here?", picture(56, 56))]
SAME = [
    (f"phi3-{target}-{precision}", f"phi3-cpu-{'fp32' if precision == 'fp16' else precision}")
    for target in ("jp7", "jp6")
    for precision in ("fp16", "int4")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference"), SAME)
def test_the_same_tokens_on_every_target(name: str, reference: str, bundles: Bundles, tmp_path: Path) -> None:
    plain = bundles(reference).bundle
    theirs = plain if reference.endswith("fp32") else unrounded(plain, tmp_path / "cpu")
    for budget in ("100%", "20%"):
        check_same(theirs, bundles(name).bundle, budget, QUESTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["phi3-cpu-int4", "phi3-cpu-int8"])
def test_quantised_bundles_answer(name: str, bundles: Bundles) -> None:
    """Their weights were held against transformers' fused ones with the same rounding when they were exported."""
    manifest = Bundle.open(bundles(name).bundle).manifest
    assert all(check.max_abs_error <= check.tolerance for check in manifest.parity)
    assert {"layers.0.self_attn.k_proj.weight", "layers.1.mlp.up_proj.weight"} <= set(manifest.quantisation_errors)
    assert len(opened(bundles(name).bundle)[0].ask(PROMPT, [picture(56, 56)], max_new_tokens=4).tokens) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_in_4_bits_keeps_them(method: Method, bundles: Bundles, tmp_path: Path) -> None:
    """Fused matrices that are packed: each part's rows, and its integers in the bundle."""
    folder = Path(shutil.copytree(bundles.checkpoint("phi3-cpu-fp32"), tmp_path / "checkpoint"))
    matrices = pack_checkpoint(folder, method, group=64)
    whole = matrices["layers.0.self_attn.qkv_proj"].weight.astype(np.float32)
    tensors = Checkpoint(folder).tensors
    for part, rows in (("q", slice(0, 128)), ("k", slice(128, 192)), ("v", slice(192, 256))):
        tensor = tensors[f"text.layers.0.self_attn.{part}_proj.weight"]
        np.testing.assert_array_equal(tensor.rows(0, tensor.shape[0]), whole[rows])
        np.testing.assert_array_equal(tensor.rows(5, 9), whole[rows][5:9])
    manifest = export(folder, tmp_path / "out", options("phi3-cpu-int4"), check=parity.check)
    kept = {name: error for name, error in manifest.quantisation_errors.items() if not name.startswith("lm_head")}
    assert len(kept) == 2 * 7
    assert max(kept.values()) == 0


@pytest.mark.slow
def test_calibration_scales_the_parts(bundles: Bundles, tmp_path: Path, measure: Measure) -> None:
    """transformers' fused modules with scaled parts say what they said without; and such a bundle passes parity."""
    folder = bundles.checkpoint("phi3-cpu-int4")
    write_questions(tmp_path / "data", pictures=2, prompts=2)
    folding = calibrate(CalibrationJob(folder, tmp_path / "data", AttentionChoice(), Scheme(4, 64, "awq"), 120))
    checkpoint = Checkpoint(folder)
    spec = read_spec(checkpoint, AttentionChoice())
    layers = [f"text.layers.{i}." for i in range(spec.decoder.layers)]
    assert set(folding.inputs) == {layer + name for layer in layers for fold in FOLDS for name in fold.readers}
    assert max(float(np.abs(np.log(factor)).max()) for factor in folding.inputs.values()) > 0.05
    embeds = torch.randn(1, 24, spec.decoder.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = References(checkpoint, spec, PLAIN).whole(embeds).numpy()
        got = References(folding.applied(checkpoint), spec, PLAIN).whole(embeds).numpy()
    assert measure("scaled", got, expected) <= 1e-5 * np.abs(expected).max()
    chosen = options("phi3-cpu-int4", quantisation="awq", calibration=tmp_path / "data", calibration_tokens=120)
    assert export(folder, tmp_path / "out", chosen, check=parity.check).quantisation.method == "awq"
