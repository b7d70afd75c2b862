"""Where tokens stand for the rotary embedding: their places in the whole sequence, and what the engine is fed.

Against transformers in tests/host/test_positions_parity.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import hired_runtime
from hired_edge.errors import InputError, LimitError
from hired_edge.packing import NEWLINES
from hired_edge.selection import Selection, select
from hired_edge.tiling import Tiling, TilingRules, tile
from hired_runtime.positions import check_positions, check_reach, original_positions, padded_positions
from hired_runtime.prompt import EncodedPrompt, question
from hired_runtime.request import Request
from tests.tiny.behaviour import recording
from tests.tiny.manifests import example_text
from tests.tiny.pictures import attention

ROOT = Path(__file__).parents[2]
BUNDLES = ("demo/bundle", "tests/golden/bundle", "tests/golden/bundle-int4")
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SIZES = st.tuples(st.integers(1, 400), st.integers(1, 400))
SEEDS = st.integers(0, 10**6)


def chosen(tiling: Tiling, seed: int, budget: Any, newlines: str | None = None) -> Selection:
    maps = [attention(tiling, seed)]
    return select([tiling], maps, maps, budget, "random", newlines=newlines)[0]


def stock_sequence(tiling: Tiling) -> list[int]:
    """Flat patches, -1 for a newline: the base picture, then the window row by row. By plain loops."""
    side, patches = tiling.rules.patches_per_side, tiling.rules.patches_per_tile
    row0, row1, column0, column1 = tiling.window
    found = list(range(patches))
    for row in range(row0, row1):
        for column in range(column0, column1):
            p = 1 + row // side * tiling.grid[1] + column // side
            found.append(p * patches + row % side * side + column % side)
        found.append(-1)
    return found


def encoded(before: int, between: int, after: int, pictures: int) -> EncodedPrompt:
    splices = tuple(before + i * between for i in range(pictures))
    return EncodedPrompt(np.arange(splices[-1] + after if splices else before + after), splices)


@settings(max_examples=60, deadline=None)
@given(SIZES, SEEDS, st.integers(0, 120), st.sampled_from([None, *NEWLINES]))
def test_a_place_is_that_of_the_stock_sequence(
    size: tuple[int, int], seed: int, budget: int, newlines: str | None
) -> None:
    """A newline stands behind its own row."""
    tiling = tile(*size, SMALL)
    budget = max(budget, tiling.rows)
    selection = chosen(tiling, seed, budget, newlines)
    stock = stock_sequence(tiling)
    assert [stock[place] for place in selection.places] == selection.gather.tolist()
    assert (np.diff(selection.places) > 0).all()
    kept = set(selection.gather.tolist()) - {-1}
    for row in range(tiling.rows):
        start = 16 + row * (tiling.columns + 1)
        patches, newline = stock[start : start + tiling.columns], start + tiling.columns
        expected = {"all-rows": True, "none": False}.get(newlines or "", bool(kept & set(patches)))
        assert (newline in selection.places) == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(SIZES, max_size=3), SEEDS, st.integers(0, 9), st.integers(0, 5), st.integers(1, 9))
def test_at_100_percent_nothing_moves(
    sizes: list[tuple[int, int]], seed: int, before: int, between: int, after: int
) -> None:
    prompt = encoded(before, between, after, len(sizes))
    selections = [chosen(tile(*size, SMALL), seed, "100%") for size in sizes]
    found = original_positions(prompt, selections)
    whole = len(prompt.ids) + sum(selection.visual_tokens for selection in selections)
    assert found.dtype == np.int64
    assert found.tolist() == list(range(whole))


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZES, max_size=3), SEEDS, st.integers(0, 60), st.integers(0, 9), st.integers(0, 5), st.integers(1, 9))
def test_text_stands_where_it_stands_in_the_stock_prompt(
    sizes: list[tuple[int, int]], seed: int, budget: int, before: int, between: int, after: int
) -> None:
    prompt = encoded(before, between, after, len(sizes))
    selections = [chosen(tile(*size, SMALL), seed + i, budget) for i, size in enumerate(sizes)]
    found, at, stock = original_positions(prompt, selections).tolist(), 0, 0
    for number, token in enumerate(prompt.ids.tolist()):
        for splice, selection in zip(prompt.splices, selections, strict=True):
            if splice == number:
                visual = found[at : at + selection.visual_tokens]
                assert visual == [stock + place for place in selection.places.tolist()]
                at, stock = at + selection.visual_tokens, stock + selection.tiling.stock_tokens
        assert found[at] == stock, token
        at, stock = at + 1, stock + 1
    assert at == len(found)
    assert (np.diff(found) > 0).all()


def test_a_worked_example() -> None:
    """Two text tokens, a picture of 16 + 2 rows of 4 + 1, of which 1, 17 and 21 are kept, three text tokens."""
    tiling = replace(tile(56, 112, TilingRules("anyres", 56, 14, ((56, 112),))), window=(1, 3, 2, 6))
    assert tiling.stock_tokens == 16 + 2 * 5
    scores = np.zeros((3, 16), np.float32)
    index = tiling.window_index
    for patch in (1, int(index[0, 1]), int(index[1, 0])):
        scores[patch // 16, patch % 16] = 1
    (selection,) = select([tiling], [scores], [scores], 3, "hired", 0.34, "none")
    assert selection.places.tolist() == [1, 17, 21]
    prompt = EncodedPrompt(np.arange(5), (2,))
    assert original_positions(prompt, [selection]).tolist() == [0, 1, 3, 19, 23, 28, 29, 30]


def test_padding_stands_behind_its_row() -> None:
    """And never beyond the tables."""
    text = replace(example_text(), positions=12)
    rows = [np.array([0, 3, 4, 9]), np.array([0, 5]), np.array([10])]
    assert padded_positions(rows, text).tolist() == [[0, 3, 4, 9], [0, 5, 6, 7], [10, 11, 11, 11]]


def test_the_last_new_token_has_a_place() -> None:
    """The last one that is fed: what is made of it needs none."""
    text = replace(example_text(), positions=100)
    check_reach(text, np.array([3, 89]), 11)
    with pytest.raises(LimitError, match=r"positions up to 101; expected at most 100, .* ask for fewer new tokens, or"):
        check_reach(text, np.array([3, 89]), 12)
    windowed = replace(text, sliding_window=50)
    check_reach(windowed, np.array([3, 39]), 11)
    with pytest.raises(LimitError, match=r"up to 51 for a model with a sliding window of 50; .* compact positions"):
        check_reach(windowed, np.array([3, 39]), 12)


@pytest.mark.parametrize("asked", ["", "Original", "stock"])
def test_what_is_no_way_to_number_tokens(asked: str) -> None:
    with pytest.raises(InputError, match=rf"positions '{asked}'; expected compact, original; pass another --positions"):
        check_positions(asked)
    with pytest.raises(InputError, match="positions"):
        Request(question("?"), positions=asked)


# Through the pipeline.


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=BUNDLES)
def model(request: pytest.FixtureRequest) -> hired_runtime.Model:
    return hired_runtime.open(ROOT / request.param, images=1, threads=1)


def test_at_100_percent_both_ways_are_one(model: hired_runtime.Model) -> None:
    """To the last bit of every logit."""
    logits, tokens = [], []
    for positions in ("compact", "original"):
        with recording(model) as recorder:
            options = {"visual_tokens": "100%", "positions": positions, "max_new_tokens": 5}
            tokens.append(model.ask("What is it?", [picture(224, 150)], **options).tokens)
        logits.append(np.concatenate(recorder.logits))
    assert tokens[0] == tokens[1]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_what_the_engine_is_fed_at_a_lower_budget(model: hired_runtime.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows into the same slots, with other positions; each decode step stands behind the last."""
    steps: list[tuple[Any, ...]] = []
    language = model.pipeline.backend.language
    step = language.step

    def spy(embeds: Any, starts: Any, last: Any, positions: Any = None, first: int = 0) -> Any:
        steps.append((embeds.copy(), starts.tolist(), last.tolist(), None if positions is None else positions.tolist()))
        return step(embeds, starts, last, positions, first)

    monkeypatch.setattr(language, "step", spy)
    found = {}
    for positions in ("compact", "original"):
        options = {"visual_tokens": "20%", "positions": positions, "max_new_tokens": 3}
        answer = model.ask("What is it?", [picture(224, 150)], **options)
        found[positions], steps = steps, []
    (selection,) = answer.selections
    prompt = model.pipeline.prompt.render(question("What is it?", 1), pictures=1)
    expected = original_positions(prompt, [selection]).tolist()
    last = len(prompt.ids) + selection.tiling.stock_tokens - 1
    assert expected[-1] == last > len(expected) - 1
    np.testing.assert_array_equal(found["compact"][0][0], found["original"][0][0])
    for one, other in zip(found["compact"], found["original"], strict=False):
        assert one[1:3] == other[1:3]
    assert [each[3] for each in found["original"]] == [
        [expected],
        *([[last + 1 + i]] for i in range(len(found["original"]) - 1)),
    ]
    assert found["compact"][0][3] == [list(range(len(expected)))]
    slots = [each[1][0] for each in found["compact"][1:]]
    assert [each[3] for each in found["compact"][1:]] == [[[slot]] for slot in slots]


def test_a_prompt_in_chunks_keeps_its_positions(model: hired_runtime.Model) -> None:
    language: Any = model.pipeline.backend.language
    options = {"visual_tokens": "20%", "positions": "original", "max_new_tokens": 3}
    logits, chunk = [], language.chunk
    for size in (None, 7):
        language.chunk = size
        with recording(model) as recorder:
            model.ask("What is it?", [picture(224, 150)], **options)
        logits.append(recorder.logits[0])
    language.chunk = chunk
    tolerance = 0.05 if model.pipeline.manifest.quantisation.bits < 16 else 1e-5  # as in test_prefill_chunks
    assert np.abs(logits[1] - logits[0]).max() <= tolerance * np.abs(logits[0]).max()


def test_rows_of_a_batch_have_positions_of_their_own() -> None:
    """Three rows of other lengths, one of them renumbered: each as alone, through prefill and four steps."""
    batched, alone = (hired_runtime.open(ROOT / "demo/bundle", batch=rows, images=1, threads=1) for rows in (3, 1))
    width = batched.pipeline.manifest.text.hidden_size
    random = np.random.default_rng(4)
    lengths = (20, 33, 9)
    rows = [0.7 * random.standard_normal((length, width)).astype(np.float32) for length in lengths]
    positions = [np.sort(random.choice(400, length, replace=False)) for length in lengths]
    positions[1] = np.arange(33)
    placed = padded_positions(positions, batched.pipeline.manifest.text)
    embeds = np.zeros((3, 33, width), np.float32)
    for row, own in enumerate(rows):
        embeds[row, : len(own)] = own
    starts = np.array(lengths)
    steps = [0.7 * random.standard_normal((3, 1, width)).astype(np.float32) for _ in range(4)]
    last = np.array([[own[-1]] for own in positions])
    for chunk in (None, 8):
        batched.pipeline.backend.language.chunk = chunk  # type: ignore[attr-defined]
        engine = batched.pipeline.backend.language
        found = [engine.step(embeds, np.zeros(3, int), starts - 1, placed).copy()]
        for number, step in enumerate(steps):
            found.append(engine.step(step, starts + number, np.zeros(3, int), last + 1 + number).copy())
        for row, own in enumerate(rows):
            single = alone.pipeline.backend.language
            zero, end = np.array([0]), np.array([len(own) - 1])
            expected = [single.step(own[None], zero, end, positions[row][None]).copy()]
            for number, step in enumerate(steps):
                at = starts[row : row + 1] + number
                expected.append(single.step(step[row : row + 1], at, zero, last[row : row + 1] + 1 + number).copy())
            for got, right in zip(found, expected, strict=True):
                assert np.abs(got[row] - right[0]).max() <= 1e-5 * np.abs(right).max()


def test_more_positions_than_the_model_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a budget that is small: the whole sequence's places must be there. Compact ones are few."""
    model = hired_runtime.open(ROOT / "demo/bundle", threads=1)
    manifest = model.pipeline.manifest
    monkeypatch.setattr(model.pipeline, "manifest", replace(manifest, text=replace(manifest.text, positions=200)))
    options = {"visual_tokens": "10%", "max_new_tokens": 3}
    model.ask("What is it?", [picture(224, 224)], **options)
    with pytest.raises(LimitError, match=r"original positions up to \d+; expected at most 200"):
        model.ask("What is it?", [picture(224, 224)], positions="original", **options)
