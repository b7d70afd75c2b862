"""AWQ: scaling alone changes nothing, the search finds what it is for, an export with it is checked as any other.

The checkpoints are tiny and random, so what awq gains on them says nothing; docs/quantisation.md says what it costs a
trained model.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hired_runtime
from hired_edge.bundle import Bundle
from hired_edge.errors import CheckpointError, InputError
from hired_export import exporter, parity
from hired_export.activation_aware.calibrate import PLAIN, CalibrationJob, calibrate
from hired_export.activation_aware.folding import FOLDS, Folding
from hired_export.activation_aware.search import Inputs, factors
from hired_export.checkpoint import Checkpoint
from hired_export.exporter import ExportOptions, export
from hired_export.families import AttentionChoice, ModelSpec, read_spec
from hired_export.quantisation import Method, Scheme, dequantise, quantise
from hired_export.references import References
from tests.host.bundles import Bundles, options, traced_language, traced_vision
from tests.host.original_layouts import Originals
from tests.host.reference import Measure
from tests.tiny.original import write_sentencepiece
from tests.tiny.questions import write_questions, write_rows

SCHEME = Scheme(4, 32, "awq")
TOKENS = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration") / "data"
    write_questions(folder, pictures=2, prompts=2)
    return folder


def drawn(spec: ModelSpec, seed: int) -> Folding:
    """Factors from a twentieth to twenty, of every fold of every layer."""
    random, shape = np.random.default_rng(seed), spec.decoder
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    widths = {"self_attn.v_proj": shape.kv_heads * shape.head_dim, "mlp.up_proj": shape.intermediate_size}
    for layer in range(shape.layers):
        for fold in FOLDS:
            width = widths.get(fold.front, shape.hidden_size)
            factor = np.exp(random.uniform(-3, 3, width)).astype(np.float32)
            outputs[f"text.layers.{layer}.{fold.front}"] = factor
            if fold.shared:
                heads = factor.reshape(shape.kv_heads, 1, shape.head_dim)
                factor = np.repeat(heads, shape.heads // shape.kv_heads, axis=1).reshape(-1)
            inputs |= {f"text.layers.{layer}.{name}": factor for name in fold.readers}
    return Folding(inputs, outputs, {}, "0" * 64)


@pytest.mark.parametrize("name", ["llava-llama", "next-qwen2", "next-mistral"])
def test_scaling_is_exact_before_rounding(name: str, bundles: Bundles, measure: Measure) -> None:
    """transformers' logits with scaled weights are those without: grouped heads, biases, a .bin file, a tied head."""
    checkpoint = Checkpoint(bundles.checkpoint(name))
    spec = read_spec(checkpoint, AttentionChoice())
    embeds = torch.randn(1, 24, spec.decoder.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = References(checkpoint, spec, PLAIN).whole(embeds).numpy()
        scaled = drawn(spec, seed=1).applied(checkpoint)
        got = References(scaled, spec, PLAIN).whole(embeds).numpy()
    error = measure(name, got, expected)
    assert error <= 1e-5 * np.abs(expected).max()
    changed = [key for key, tensor in scaled.tensors.items() if tensor is not checkpoint.tensors[key]]
    assert len([key for key in changed if key.endswith(".weight")]) == 9 * spec.decoder.layers  # 7 products, 2 norms
    for key in changed:
        (theirs, ours) = (each.tensors[key] for each in (checkpoint, scaled))
        assert not np.array_equal(theirs.rows(0, 8), ours.rows(0, 8)), key


def test_the_search_protects_a_channel_that_stands_out() -> None:
    """A hundredth of the channels carries most of the outputs: with calibration, less of it is lost."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((96, 256), np.float32)
    sample = random.standard_normal((200, 256), np.float32)
    sample[:, [7, 40, 201]] *= 60
    inputs = Inputs(np.abs(sample).mean(axis=0), np.square(sample).mean(axis=0), sample)
    factor = factors(inputs, [weight], Scheme(4, 128, "awq"), None)
    others = np.delete(factor, [7, 40, 201])
    assert factor[[7, 40, 201]].min() > others.max()
    np.testing.assert_allclose(factor.max() * factor.min(), 1, rtol=1e-5)
    unseen = random.standard_normal((200, 256), np.float32) * sample.std(axis=0)

    def lost(by: Any, method: Method, importance: Any = None) -> float:
        scheme = Scheme(4, 128, method)
        change = dequantise(*quantise(weight * by, scheme, importance), scheme, 256) / by - weight
        return float(np.linalg.norm(unseen @ change.T))

    alone = np.ones(256, np.float32)
    scaled, counted = (lost(by, "awq", inputs.square / by**2) for by in (factor, alone))
    print(f"lost of the outputs: scaled {scaled:.0f}, counted {counted:.0f}, neither {lost(alone, 'hqq'):.0f}")
    assert scaled < counted < lost(alone, "hqq") < lost(alone, "rtn")
    assert scaled < 0.5 * lost(alone, "rtn")


def test_query_heads_of_a_kv_head_share_factors() -> None:
    random = np.random.default_rng(0)
    sample = random.standard_normal((50, 64), np.float32) * np.exp(random.standard_normal(64)).astype(np.float32)
    inputs = Inputs(np.abs(sample).mean(axis=0), np.square(sample).mean(axis=0), sample)
    factor = factors(inputs, [random.standard_normal((16, 64), np.float32)], SCHEME, (2, 4, 8))
    heads = factor.reshape(2, 4, 8)
    np.testing.assert_array_equal(heads, np.broadcast_to(heads[:, :1], heads.shape))
    assert len(np.unique(heads[:, 0])) > 1


def test_calibration_names_every_fold_and_repeats(bundles: Bundles, data: Path) -> None:
    path = bundles.checkpoint("llava-llama")
    job = CalibrationJob(path, data, AttentionChoice(), SCHEME, TOKENS)
    folding = calibrate(job)
    shape = read_spec(Checkpoint(path), AttentionChoice()).decoder
    layers = [f"text.layers.{i}." for i in range(shape.layers)]
    assert set(folding.outputs) == {layer + fold.front for layer in layers for fold in FOLDS}
    readers = {layer + name for layer in layers for fold in FOLDS for name in fold.readers}
    assert set(folding.inputs) == set(folding.importance) == readers
    for values in (*folding.inputs.values(), *folding.outputs.values()):
        assert np.isfinite(values).all()
        assert (values > 0).all()
    assert calibrate(job).sha256 == folding.sha256


@pytest.fixture
def original(originals: Originals, data: Path, tmp_path: Path) -> CalibrationJob:
    """Of a LLaVA-1.5, whose folder may be changed."""
    made = originals("llava-v1.5-7b")
    folder = Path(shutil.copytree(made.original, tmp_path / made.original.name))
    return CalibrationJob(folder, data, AttentionChoice(), SCHEME, TOKENS, made.tower)


def test_an_original_vocabulary_has_no_token_for_a_picture(original: CalibrationJob) -> None:
    """Nor does a question's own "<image>" become a second one."""
    expected = calibrate(original).sha256
    write_sentencepiece(original.checkpoint)
    rows = [json.loads(line) for line in (original.data / "questions.jsonl").read_text().splitlines()]
    marked = Path(shutil.copytree(original.data, original.checkpoint.with_name("marked")))
    write_rows(marked, [{**row, "prompt": f"<image>{row['prompt']}"} for row in rows])
    assert calibrate(replace(original, data=marked)).sha256 == expected


def test_a_template_may_take_one_string_for_parts(original: CalibrationJob, tmp_path: Path) -> None:
    template = tmp_path / "one.jinja"
    template.write_text("{% for message in messages %}{{ 'USER: ' + message['content'] + ' ' }}{% endfor %}ASSISTANT:")
    assert calibrate(replace(original, chat_template=template)).inputs
    for source, reason in {"{{ raise_exception('No.') }}": "No.", "USER:": "it leaves the picture out"}.items():
        template.write_text(source)
        with pytest.raises(CheckpointError) as caught:
            calibrate(replace(original, chat_template=template))
        assert f"makes no prompt of a picture and a question ({reason})" in str(caught.value)


def test_an_export_with_it_is_checked_and_answers(
    bundles: Bundles, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parity check's reference is scaled alike, or this export would fail; the scaled tensors are in the bundle."""
    monkeypatch.setattr(exporter, "language_graph", traced_language)
    monkeypatch.setattr(exporter, "vision_graph", traced_vision)
    name, found = "wide-int4-32", []

    def calibrated(job: CalibrationJob) -> Folding:
        found.append(calibrate(job))
        return found[0]

    chosen = options(name, quantisation="awq", calibration=data, calibration_tokens=TOKENS, embedding="int8")
    manifest = export(bundles.checkpoint(name), tmp_path / "out", chosen, check=parity.check, calibrate=calibrated)
    assert manifest.quantisation.method == "awq"
    assert manifest.quantisation.calibration == found[0].source
    assert Bundle.open(tmp_path / "out").manifest == manifest
    assert manifest.quantisation.embedding_dtype == "int8"
    assert manifest.quantisation_errors["embed_tokens"] < 0.01
    assert any(np.ptp(factor) > 0 for factor in found[0].inputs.values())
    plain = Bundle.open(bundles(name).bundle).manifest.quantisation_errors
    assert manifest.quantisation_errors != plain
    answer = hired_runtime.open(tmp_path / "out").ask("What is it?", [data / "0.png"], max_new_tokens=3)
    assert len(answer.tokens) >= 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"quantisation": "awq"}, "--quantisation awq without --calibration"),
        ({"quantisation": "hqq", "calibration": "DATA"}, "--calibration with --quantisation hqq"),
        ({"calibration": "DATA"}, "--calibration without --quantisation awq"),
        ({"quantisation": "hqq", "precision": "int8"}, "--quantisation hqq with --precision int8"),
        ({"quantisation": "gptq"}, "--quantisation gptq with --target cpu; expected rtn or hqq or awq"),
        ({"quantisation": "awq", "calibration": "NONE"}, "cannot be read"),
        ({"quantisation": "awq", "calibration": "BAD"}, "line 5: 'half.png' is not there"),
        ({"quantisation": "awq", "calibration": "DATA", "calibration_tokens": 0}, "--calibration-tokens 0"),
        ({"embedding": "int4"}, "--embedding int4 with --target cpu; expected fp32 or fp16 or int8"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    chosen: dict[str, Any], message: str, bundles: Bundles, data: Path, tmp_path: Path
) -> None:
    folders = {"DATA": data, "NONE": tmp_path / "none", "BAD": tmp_path / "bad"}
    rows = write_questions(folders["BAD"], pictures=2, prompts=2)
    write_rows(folders["BAD"], [*rows, {**rows[0], "image": "half.png"}])
    if "calibration" in chosen:
        chosen = {**chosen, "calibration": folders[chosen["calibration"]]}
    asked = ExportOptions(**{"precision": "int4", "progress": False, **chosen})
    with pytest.raises(InputError) as caught:
        export(bundles.checkpoint("next-llama"), tmp_path / "out", asked)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
