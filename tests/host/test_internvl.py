"""InternVL's whole path against transformers: InternVLForConditionalGeneration with its own processor.

At 100 % logits and greedy tokens; below, transformers' language model fed with the selected rows of its own features,
which were chosen by its own eager attention, pooled here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from hired_edge.budget import parse_budget
from hired_edge.bundle import Bundle
from hired_edge.errors import InputError
from hired_edge.selection import select
from hired_export import exporter, parity
from hired_export.exporter import export
from hired_export.families import AttentionChoice
from hired_runtime.pipeline import Timings
from hired_runtime.prompt import question
from tests.host.bundles import Bundles, marked, options, traced_language, traced_vision
from tests.host.near_ties import check_same, unrounded
from tests.host.reference import TOLERANCE, Measure, Reference, opened, picture, scaled, taken
from tests.tiny.commands import Capture, accepted
from tests.tiny.pictures import TABLE
from tests.tiny.questions import write_questions

References = Callable[[str], Reference]
PROMPT = "What is shown in this picture?"
NEW_TOKENS = 20
NAMES = marked(("internvl-qwen2", "internvl-llama"))
RANDOM_SIZES = [tuple(map(int, size)) for size in np.random.default_rng(11).integers(1, 400, (6, 2))]


@pytest.mark.parametrize("name", NAMES)
def test_answers_at_100_percent(name: str, bundles: Bundles, references: References, measure: Measure) -> None:
    model, recorder = opened(bundles(name).bundle)
    reference = references(name)
    for size in ((107, 80), (30, 170), (56, 56)):
        image = picture(*size)
        answer = model.ask(PROMPT, [image], max_new_tokens=NEW_TOKENS)
        inputs = reference.inputs(question(PROMPT, 1), [image])
        assert sum(s.visual_tokens for s in answer.selections) == reference.placeholders(inputs)
        assert answer.tokens == reference.generate(inputs, NEW_TOKENS)
        got, expected = taken(recorder), reference.logits(inputs, answer.tokens)
        assert measure(f"{name} {size}", got, expected) <= TOLERANCE
        assert 0.5 < expected.std() < 50, "logits of natural scale, or the tolerance means nothing"


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_size(name: str, bundles: Bundles, references: References, measure: Measure) -> None:
    model, recorder = opened(bundles(name).bundle)
    reference = references(name)
    got, expected, tiles = [], [], set()
    for size in [*(scaled(*size) for size in TABLE), *RANDOM_SIZES, (1, 1), (400, 5), (5, 400)]:
        image = picture(*size)
        answer = model.ask(PROMPT, [image], max_new_tokens=1)
        inputs = reference.inputs(question(PROMPT, 1), [image])
        (selection,) = answer.selections
        assert selection.visual_tokens == reference.placeholders(inputs), size
        tiles.add(selection.tiling.tiles)
        got.append(taken(recorder))
        expected.append(reference.logits(inputs, answer.tokens))
    assert measure(f"{name} prefill, {len(got)} sizes", np.concatenate(got), np.concatenate(expected)) <= TOLERANCE
    assert tiles == {1, 3, 4, 5, 6}, "every number of tiles up to five, and the whole picture beside them"


CASES = [
    (name, policy, budget)
    for name in ("internvl-qwen2", "internvl-llama")
    for policy in ("hired", "hired-2024")
    for budget in ("50%", "33.3%", 5)
]


@pytest.mark.parametrize(
    ("name", "policy", "budget"),
    [pytest.param(*case, marks=pytest.mark.slow) if case[0] == "internvl-llama" else case for case in CASES],
)
def test_answers_at_lower_budgets(
    name: str, policy: str, budget: Any, bundles: Bundles, references: References, measure: Measure
) -> None:
    model, recorder = opened(bundles(name).bundle)
    reference = references(name)
    image = picture(150, 60, seed=3)
    answer = model.ask(PROMPT, [image], max_new_tokens=NEW_TOKENS, visual_tokens=budget, policy=policy)
    (selection,) = answer.selections
    inputs = reference.inputs(question(PROMPT, 1), [image])
    assert selection.tiling.grid == (1, 3)
    assert 0 < selection.visual_tokens <= selection.budget < reference.placeholders(inputs)
    assert policy != "hired" or selection.visual_tokens == selection.budget, "without newlines, to the token"

    maps = reference.vision(inputs)[1]
    vision = Bundle.open(bundles(name).bundle, verify=False).manifest.vision
    assert (vision.allocation_layer, vision.selection_layer) == (0, vision.feature_layer)
    allocation, attention = (maps[layer].sum(1) for layer in (vision.allocation_layer, vision.selection_layer))
    (theirs,) = select([selection.tiling], [allocation], [attention], budget, policy=policy)
    assert selection.gather.tolist() == theirs.gather.tolist()

    got = taken(recorder)
    expected = reference.continued(reference.spliced(inputs, selection), answer.tokens)
    assert measure(f"{name} {policy} {budget}", got, expected) <= TOLERANCE
    assert answer.tokens == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_attention_maps(name: str, bundles: Bundles, references: References, measure: Measure) -> None:
    """Of every tile, the whole picture first, against transformers' eager attention weights."""
    model, _ = opened(bundles(name).bundle)
    image = picture(150, 60, seed=5)
    seen = model.pipeline.see([image], parse_budget("100%"), None, Timings())
    expected = references(name).vision(references(name).inputs(question(PROMPT, 1), [image]))[1]
    vision = model.pipeline.manifest.vision
    for map_, layer in ((seen.maps[0].allocation, 0), (seen.maps[0].selection, vision.selection_layer)):
        assert measure(f"{name} layer {layer}", np.array(map_), expected[layer].sum(1)) <= 1e-5
        assert np.ptp(map_) > 0.1, "a flat map shows nothing"


def test_two_pictures_in_two_turns(bundles: Bundles, references: References, measure: Measure) -> None:
    model, recorder = opened(bundles("internvl-qwen2").bundle)
    reference = references("internvl-qwen2")
    images = [picture(107, 80, seed=1), picture(50, 160, seed=2)]
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is on the wall?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A clock."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And here?"}]},
    ]
    answer = model.chat(messages, images, max_new_tokens=NEW_TOKENS)
    inputs = reference.inputs(messages, images)
    assert answer.tokens == reference.generate(inputs, NEW_TOKENS)
    assert measure("two pictures", taken(recorder), reference.logits(inputs, answer.tokens)) <= TOLERANCE


def test_the_whole_picture_alone(bundles: Bundles) -> None:
    """`--partitions base`: the thumbnail's tokens, which are the last of the whole sequence."""
    model, _ = opened(bundles("internvl-qwen2").bundle)
    image = picture(107, 80)
    whole = model.ask(PROMPT, [image], max_new_tokens=1).selections[0]
    alone = model.ask(PROMPT, [image], max_new_tokens=1, partitions="base").selections[0]
    assert alone.gather.tolist() == whole.gather[-4:].tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="newline policy 'kept-rows' for a model without newlines"):
        model.ask(PROMPT, [image], max_new_tokens=1, newlines="kept-rows")


def test_a_config_as_transformers_4_wrote_it(bundles: Bundles, tmp_path: Path, measure: Measure) -> None:
    """Old names in text_config, and `tie_word_embeddings` left out, which means yes to transformers 5: but the head is
    stored, and another matrix, so it is not tied."""
    folder = Path(shutil.copytree(bundles.checkpoint("internvl-qwen2"), tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    text["rope_theta"], text["torch_dtype"] = text.pop("rope_parameters")["rope_theta"], text.pop("dtype")
    del config["tie_word_embeddings"], text["tie_word_embeddings"], text["layer_types"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "language_graph", traced_language)
        patch.setattr(exporter, "vision_graph", traced_vision)
        export(folder, tmp_path / "bundle", options("internvl-qwen2"), check=parity.check)
    reference = Reference(folder)
    assert reference.model.config.tie_word_embeddings
    model, recorder = opened(tmp_path / "bundle")
    answer = model.ask(PROMPT, [picture(107, 80)], max_new_tokens=4)
    inputs = reference.inputs(question(PROMPT, 1), [picture(107, 80)])
    assert measure("transformers 4", taken(recorder), reference.logits(inputs, answer.tokens)) <= TOLERANCE


@pytest.mark.slow
def test_a_head_that_is_stored_counts_as_in_transformers(bundles: Bundles, tmp_path: Path) -> None:
    """Where it is the embedding table all the same, and the config says that it is tied: the same answer."""
    folder = Path(shutil.copytree(bundles.checkpoint("internvl-qwen2"), tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    tensors = load_file(folder / "model.safetensors")
    head = next(name for name in tensors if name.endswith("lm_head.weight"))
    table = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    answers = []
    for stored in ({**tensors, head: tensors[table].clone()}, {key: tensors[key] for key in tensors if key != head}):
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        out = tmp_path / f"bundle-{len(answers)}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporter, "language_graph", traced_language)
            patch.setattr(exporter, "vision_graph", traced_vision)
            export(folder, out, options("internvl-qwen2"), check=parity.check)
        answers.append(opened(out)[0].ask(PROMPT, [picture(107, 80)], max_new_tokens=NEW_TOKENS).tokens)
        reference = Reference(folder)
        assert answers[-1] == reference.generate(reference.inputs(question(PROMPT, 1), [picture(107, 80)]), NEW_TOKENS)
    assert answers[0] == answers[1]


QUESTIONS = [
    ("What is it?", picture(107, 80)),
    ("Read the sign.", picture(30, 170)),
    ("How many are there?", picture(56, 56)),
]
SAME = [
    (f"internvl-{target}-{precision}", f"internvl-cpu-{'fp32' if precision == 'fp16' else precision}")
    for target in ("jp7", "jp6")
    for precision in ("fp16", "int4")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference"), SAME)
def test_the_same_tokens_on_every_target(name: str, reference: str, bundles: Bundles, tmp_path: Path) -> None:
    plain = bundles(reference).bundle
    theirs = plain if reference.endswith("fp32") else unrounded(plain, tmp_path / "cpu")
    for budget in ("100%", "20%"):
        error = check_same(theirs, bundles(name).bundle, budget, QUESTIONS)
        print(f"{name} at {budget}: largest error of the logits {error:.1e} of the largest")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["internvl-cpu-int4", "internvl-cpu-int8"])
def test_quantised_bundles_answer(name: str, bundles: Bundles) -> None:
    """Their weights were held against transformers' with the same rounding when they were exported."""
    made = bundles(name).bundle
    manifest = Bundle.open(made).manifest
    assert {check.piece for check in manifest.parity} >= {"vision.image_features", "language"}
    assert all(check.max_abs_error <= check.tolerance for check in manifest.parity)
    assert len(opened(made)[0].ask(PROMPT, [picture(107, 80)], max_new_tokens=8, visual_tokens="20%").tokens) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["internvl-qwen2", "internvl-llama"])
@pytest.mark.parametrize(
    "attention", [AttentionChoice(1, 2, "3"), AttentionChoice(2, 2)], ids=["one head", "one layer"]
)
def test_other_layers_heads_and_int8_towers(
    name: str, attention: AttentionChoice, bundles: Bundles, tmp_path: Path
) -> None:
    """The export's own parity check holds features and maps; with int8, without the rounding of activations too."""
    for vision in (None, "int8"):
        chosen = options(name, attention=attention, vision_precision=vision)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporter, "language_graph", traced_language)
            patch.setattr(exporter, "vision_graph", traced_vision)
            manifest = export(bundles.checkpoint(name), tmp_path / f"{vision}", chosen, check=parity.check)
        assert (manifest.vision.heads, manifest.quantisation.vision) == (attention.heads, vision or "float")
        opened(tmp_path / f"{vision}")[0].ask(PROMPT, [picture(107, 80)], max_new_tokens=2)


@pytest.mark.slow
def test_calibration_looks_at_pictures_as_the_runtime_does(bundles: Bundles, tmp_path: Path) -> None:
    write_questions(tmp_path / "data", pictures=2, prompts=2)
    chosen = options(
        "internvl-cpu-int4", quantisation="awq", calibration=tmp_path / "data", calibration_tokens=120, block_size=64
    )
    manifest = export(bundles.checkpoint("internvl-cpu-int4"), tmp_path / "bundle", chosen, check=parity.check)
    assert manifest.quantisation.method == "awq"


@pytest.mark.slow
def test_a_synthetic_bundle_answers(tmp_path: Path, capsys: Capture) -> None:
    """From config.json alone: a stand-in tokenizer with the tokens around pictures, and random weights."""
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {
        "model_type": "internvl",
        "image_token_id": 400,
        "text_config": {**text, "model_type": "qwen2", "num_key_value_heads": 2, "vocab_size": 448},
        "vision_config": {**tower, "image_size": [56, 56]},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    flags = ("--precision", "int4", "--visual-tokens", "100%", "--max-text-tokens", 128, "--max-new-tokens", 16)
    accepted(capsys, "export", "--synthetic", tmp_path / "tiny.json", tmp_path / "bundle", *flags)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (manifest.prompt.image_start, manifest.prompt.image_end) == ("<img>", "</img>")
    assert manifest.limits.tiles == 13, "as InternVL's processor assumes where nothing is said"
    answer = opened(tmp_path / "bundle")[0].ask("Who?", [picture(300, 200)], max_new_tokens=4, visual_tokens="20%")
    assert len(answer.tokens) >= 1


def test_keys_are_refused(bundles: Bundles, tmp_path: Path) -> None:
    chosen = options("internvl-qwen2", attention=AttentionChoice(keys=True))
    with pytest.raises(
        InputError, match=r"--with-keys for model_type 'internvl'; expected a family whose visual tokens"
    ):
        export(bundles.checkpoint("internvl-qwen2"), tmp_path / "out", chosen)
    assert not list(tmp_path.iterdir())
