"""Kept tokens that stand for several patches: the sums against a dense product, and what must stay as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import hired_runtime
from hired_edge.merging import merge_rows
from hired_edge.policies.policy import Merge, joined
from hired_runtime.backend import Floats, Ints
from hired_runtime.prompt import question

ROOT = Path(__file__).parents[2]


def random_case(seed: int, patches: int, kept: int, newlines: int, weights: int) -> tuple[Ints, Merge, Floats]:
    """Gather index, merge and features: the first targets have a weight at least, one pair may stand there twice."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(patches, kept, replace=False))
    gather = random.permutation(np.concatenate([chosen, np.full(newlines, -1)]))
    target = random.choice(chosen, weights) if kept else np.zeros(0, np.int64)
    source = random.integers(0, patches, len(target))
    merge = Merge(target, source, random.standard_normal(len(target)).astype(np.float32))
    return gather, merge, random.standard_normal((patches, 6)).astype(np.float32)


def check(gather: Ints, merge: Merge, features: Floats) -> None:
    visual = np.where(gather[:, None] < 0, np.float32(7), features[gather])
    before, fetched = visual.copy(), []

    def fetch(rows: Ints) -> Floats:
        fetched.append(len(rows))
        return features[rows]

    merge_rows(visual, gather, merge, fetch)
    matrix = np.zeros((len(features), len(features)))
    np.add.at(matrix, (merge.target, merge.source), merge.weight.astype(np.float64))
    merged = set(merge.target.tolist())
    sums = matrix @ features.astype(np.float64)
    for row, patch in enumerate(gather.tolist()):
        if patch in merged:
            np.testing.assert_allclose(visual[row], sums[patch], atol=1e-4)
        else:
            np.testing.assert_array_equal(visual[row], before[row])
    assert bool(fetched) == bool(merged)
    assert len(fetched) > 1 or len(merged) < 290, "some at a time"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 6), st.integers(0, 90))
def test_a_merge_is_a_product_and_newlines_stay(seed: int, kept: int, newlines: int, weights: int) -> None:
    check(*random_case(seed, 60, kept, newlines, weights))


@pytest.mark.parametrize("kept", [31, 32, 33, 256, 257, 300])
@pytest.mark.parametrize("each", [4, 40, 90])
def test_more_targets_than_are_summed_at_once(kept: int, each: int) -> None:
    check(*random_case(kept, 400, kept, 9, each * kept))


def test_a_weight_of_one_at_the_patch_itself_changes_nothing() -> None:
    gather, _, features = random_case(1, 400, 300, 5, 0)
    own = gather[gather >= 0]
    visual = features[gather]
    before = visual.copy()
    merge_rows(visual, gather, Merge(own, own, np.ones(300, np.float32)), lambda rows: features[rows])
    np.testing.assert_array_equal(visual, before)


def test_a_merge_into_a_patch_that_is_not_kept_is_an_error() -> None:
    features = np.zeros((3, 2), np.float32)
    merge = Merge(np.array([2]), np.array([0]), np.ones(1, np.float32))
    with pytest.raises(AssertionError, match="not kept"):
        merge_rows(features[[0, 1]], np.array([0, 1]), merge, lambda rows: features[rows])


def test_merges_are_joined_in_order_and_none_is_one() -> None:
    one = Merge(np.array([1, 2]), np.array([3, 4]), np.array([0.5, 1], np.float32))
    two = Merge(np.array([5]), np.array([6]), np.array([2], np.float32))
    assert [part.tolist() for part in joined([one, two])] == [[1, 2, 5], [3, 4, 6], [0.5, 1, 2]]
    assert [(part.tolist(), part.dtype) for part in joined([])] == [([], np.int64), ([], np.int64), ([], np.float32)]


# Through the pipeline.


@pytest.fixture(scope="module")
def model() -> hired_runtime.Model:
    return hired_runtime.open(ROOT / "demo/bundle", threads=1)


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("size", "budget"), [((224, 224), "40%"), ((224, 150), "20%"), ((90, 300), 40)])
def test_pooled_tokens_are_averages_of_the_towers_features(
    size: tuple[int, int], budget: Any, model: hired_runtime.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What enters the language model, against rows that the vision engine gives."""
    fed: list[Floats] = []
    splice = model.pipeline.splice

    def spy(*args: Any) -> Any:
        fed.append(splice(*args))
        return fed[-1]

    monkeypatch.setattr(model.pipeline, "splice", spy)
    options = {"visual_tokens": budget, "policy": "spatial-pooling", "newlines": "kept-rows"}
    answer = model.ask("What is it?", [picture(*size)], max_new_tokens=1, **options)
    (selection,) = answer.selections
    (at,) = model.pipeline.prompt.render(question("What is it?", 1), pictures=1).splices
    visual = fed[0][at : at + selection.visual_tokens]
    tiling = selection.tiling
    side, rows = round(selection.counts[0] ** 0.5), selection.newlines
    columns = selection.kept - side * side
    columns = columns // rows if rows else 0
    assert 1 < side < 8
    base = pooled(model.pipeline.backend.vision.gather(np.arange(64)).reshape(8, 8, -1), side, side)
    np.testing.assert_allclose(visual[: side * side], base, rtol=1e-5, atol=1e-4)
    mosaic = model.pipeline.backend.vision.gather(tiling.window_index.reshape(-1))
    cells = pooled(mosaic.reshape(tiling.rows, tiling.columns, -1), rows, columns).reshape(rows, columns, -1)
    ended = visual[side * side :].reshape(rows, columns + 1, -1)
    np.testing.assert_allclose(ended[:, :-1], cells, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(ended[:, -1], np.broadcast_to(model.pipeline.embedding.newline, (rows, 128)))


def pooled(patches: Floats, rows: int, columns: int) -> Floats:
    """Averages over cells of a grid, in float64, (rows * columns, D)."""
    height, width, _ = patches.shape
    cells = [
        patches[
            i * height // rows : -(-(i + 1) * height // rows), j * width // columns : -(-(j + 1) * width // columns)
        ]
        for i in range(rows)
        for j in range(columns)
    ]
    return np.array([cell.mean(axis=(0, 1), dtype=np.float64) for cell in cells])


def test_a_budget_of_nothing_keeps_nothing(model: hired_runtime.Model) -> None:
    answer = model.ask("What is it?", [picture(100, 90)], max_new_tokens=1, visual_tokens=0, policy="spatial-pooling")
    assert answer.selections[0].visual_tokens == 0


def test_a_policy_that_compares_runs_on_the_demonstration(model: hired_runtime.Model) -> None:
    """Features of the engine, every policy: another choice each, and the same again."""
    kept = {}
    for policy in ("hired", "scope", "vispruner", "divprune", "holov", "top-cls"):
        options = {"visual_tokens": "20%", "policy": policy, "max_new_tokens": 2}
        one, again = (model.ask("What is it?", [picture(224, 200)], **options) for _ in range(2))
        assert one.tokens == again.tokens
        kept[policy] = tuple(one.selections[0].gather.tolist())
        assert kept[policy] == tuple(again.selections[0].gather.tolist())
        assert 0 <= one.selections[0].unused <= 3
    assert len(set(kept.values())) == len(kept)
