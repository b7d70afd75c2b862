"""Original positions against transformers: the same rows with explicit `position_ids` give the same logits.

On the graph as exported for the CPU, on the standard one, which takes a mask as target `jp7`'s and `cuda`'s do, on one
that gives out new keys and values alone as `jp6`'s does; and on what those targets really export, in fp16.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hired_edge.errors import LimitError
from hired_edge.selection import Selection
from hired_edge.tiling import TilingRules
from hired_runtime import ort
from hired_runtime.model import Model
from hired_runtime.pipeline import Timings
from hired_runtime.prompt import question
from hired_runtime.sampling import SamplingOptions
from tests.host.bundles import Bundles
from tests.host.near_ties import TOLERANCE as FP16_TOLERANCE
from tests.host.reference import TOLERANCE, Measure, Recorder, Reference, opened, picture, taken
from tests.host.test_cache_rules import made
from tests.host.test_geometry_parity import stock_features

References = Callable[[str], Reference]
PROMPT = "What is shown in this picture?"
NEW_TOKENS = 6  # a prefill and five steps
KINDS = ("lowered", "standard", "append")


def transformers_places(selection: Selection, rules: TilingRules) -> list[int]:
    """Where the kept tokens stand among transformers' own placeholders; a newline is the first behind its row."""
    tiling = selection.tiling
    if tiling.rules.kind == "single":
        return selection.gather.tolist()
    stock, places = stock_features(tiling.height, tiling.width, rules), []
    for index in selection.gather.tolist():
        places.append(stock.index(index, places[-1] + 1 if places else 0))
    return places


def placed(reference: Reference, inputs: dict[str, Any], selection: Selection, rules: TilingRules) -> list[int]:
    """The position of every row in transformers' prompt: of text, and of the placeholders that are kept."""
    pictures = (inputs["input_ids"][0] == reference.model.config.image_token_id).tolist()
    at = pictures.index(True)
    kept = {at + place for place in transformers_places(selection, rules)}
    return [i for i, is_picture in enumerate(pictures) if not is_picture or i in kept]


def check(
    model: Model, recorder: Recorder, reference: Reference, options: dict[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Asks at original positions; the logits, and transformers'."""
    image = picture(150, 60, seed=3)
    answer = model.ask(PROMPT, [image], positions="original", max_new_tokens=NEW_TOKENS, **options)
    (selection,) = answer.selections
    inputs = reference.inputs(question(PROMPT, 1), [image])
    assert selection.visual_tokens < reference.placeholders(inputs)
    rows = placed(reference, inputs, selection, model.pipeline.manifest.vision.tiling)
    embeds = reference.spliced(inputs, selection)
    assert len(rows) == embeds.shape[1] < rows[-1] + 1 == inputs["input_ids"].shape[1]
    expected = reference.continued(embeds, answer.tokens, rows)
    compact = reference.continued(embeds, answer.tokens)
    assert np.abs(expected - compact).max() > 100 * TOLERANCE, "positions make a difference"
    return taken(recorder), expected


@pytest.mark.parametrize(
    "name",
    [
        "next-llama",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("next-mistral", "next-qwen2", "llava-llama")),
    ],
)
@pytest.mark.parametrize(("policy", "newlines"), [("hired", None), ("uniform", "none")])
def test_every_text_model(
    name: str, policy: str, newlines: str | None, bundles: Bundles, references: References, measure: Measure
) -> None:
    """Prefill in one piece and five steps."""
    model, recorder = opened(bundles(name).bundle)
    options = {"visual_tokens": "33.3%", "policy": policy, "newlines": newlines}
    got, expected = check(model, recorder, references(name), options)
    assert len(got) == NEW_TOKENS
    assert measure(f"{name} {policy}", got, expected) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [None, 8])
def test_every_sort_of_graph_in_one_piece_and_in_chunks(
    kind: str,
    chunk: int | None,
    bundles: Bundles,
    references: References,
    measure: Measure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if chunk is not None:
        monkeypatch.setattr(ort, "PREFILL_CHUNK", chunk)
    model, recorder = opened(made(kind, "next-llama", bundles, tmp_path))
    assert recorder.engine.chunk == (chunk or ort.PREFILL_CHUNK)
    got, expected = check(model, recorder, references("next-llama"), {"visual_tokens": "20%"})
    assert measure(f"{kind}, chunks of {chunk}", got, expected) <= TOLERANCE


@pytest.mark.parametrize("name", ["cuda-fp16", "jp7-fp16", "jp6-fp16"])
def test_what_the_targets_export(name: str, bundles: Bundles, references: References, measure: Measure) -> None:
    """On the CPU, in fp16, against transformers in fp32."""
    model, recorder = opened(bundles(name).bundle, visual_tokens="20%")
    got, expected = check(model, recorder, references(name), {"visual_tokens": "20%"})
    assert measure(name, got, expected) <= FP16_TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [None, 8])
def test_ragged_rows_with_positions_of_their_own(
    kind: str, chunk: int | None, bundles: Bundles, references: References, measure: Measure, tmp_path: Path
) -> None:
    """Three rows in one batch, one of them without gaps: each is transformers' with its own `position_ids`."""
    model, recorder = opened(made(kind, "next-llama", bundles, tmp_path), batch=3)
    recorder.engine.chunk = chunk
    reference, random = references("next-llama"), np.random.default_rng(8)
    lengths = (21, 40, 12)
    positions = [np.sort(random.choice(300, length, replace=False)) for length in lengths]
    positions[1] = np.arange(40)
    rows = [0.7 * random.standard_normal((length, 64)).astype(np.float32) for length in lengths]
    steps = model.pipeline.decode(rows, SamplingOptions(), NEW_TOKENS, Timings(), positions)
    tokens = np.array(list(steps)).T
    assert tokens.shape == (3, NEW_TOKENS)
    for row, embeds in enumerate(rows):
        got = np.stack([logits[row] for logits in recorder.logits])
        where = positions[row].tolist()
        expected = reference.continued(torch.from_numpy(embeds)[None], tokens[row].tolist(), where)
        assert measure(f"{kind}, row {row}", got, expected) <= TOLERANCE
        assert tokens[row].tolist() == expected.argmax(axis=1).tolist()


def test_positions_without_gaps_are_none(references: References) -> None:
    """The reference with explicit positions is the one without, where nothing was cut."""
    reference = references("next-llama")
    embeds = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 30, 64)).astype(np.float32))
    one, other = (reference.continued(embeds, [1, 2, 3], places) for places in (None, range(30)))
    assert np.abs(one - other).max() <= TOLERANCE / 10


def test_a_window_that_the_whole_sequence_outgrows_is_refused(bundles: Bundles) -> None:
    model, _ = opened(bundles("next-mistral-window").bundle)
    with pytest.raises(LimitError, match=r"original positions up to \d+ for a model with a sliding window of 24"):
        model.ask(PROMPT, [picture(107, 80)], visual_tokens="20%", positions="original", max_new_tokens=2)
