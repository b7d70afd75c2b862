"""The base picture alone: no sub-image is seen, and the choice is that of a model that never had any."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import hired_runtime
from hired_edge.budget import Budget, parse_budget
from hired_edge.errors import InputError, LimitError
from hired_edge.packing import NEWLINES
from hired_edge.policies import POLICIES
from hired_edge.selection import select
from hired_edge.tiling import TilingRules, tile
from hired_runtime.ort import OrtVision
from hired_runtime.pipeline import Timings
from hired_runtime.request import Request
from hired_runtime.seen import all_features
from tests.tiny.pictures import attention, noise

BUNDLE = Path(__file__).parents[2] / "demo/bundle"
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 112), (168, 56)))
SINGLE = TilingRules("single", 56, 14)


@pytest.fixture(scope="module")
def model() -> hired_runtime.Model:
    return hired_runtime.open(BUNDLE, threads=1)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tiles each picture is seen as, from now on."""
    seen: list[int] = []
    encode = OrtVision.encode

    def spy(engine: OrtVision, pixels: Any, slot: int = 0) -> Any:
        seen.append(len(pixels))
        return encode(engine, pixels, slot)

    monkeypatch.setattr(OrtVision, "encode", spy)
    return seen


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def test_the_rules_of_a_base_picture() -> None:
    base = tile(90, 112, SMALL).base_picture
    assert base == tile(90, 112, SINGLE)
    assert (base.tiles, base.rows, base.eligible_tokens, base.stock_tokens) == (1, 0, 16, 16)
    assert base.base_picture == base
    assert (SMALL.base_picture, SINGLE.base_picture) == (SINGLE, SINGLE)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(0, 10**6),
    st.one_of(st.integers(0, 40), st.sampled_from(["100%", "50%", "20%"])),
    st.sampled_from(sorted(name for name, policy in POLICIES.items() if "keys" not in policy.needs)),
)
def test_the_choice_is_that_of_one_tile(size: tuple[int, int], seed: int, budget: int | str, policy: str) -> None:
    """A percentage is of its patches, 100 % its whole map; the mosaic's attention plays no part."""
    tiling, alone = tile(*size, SMALL), tile(*size, SINGLE)
    maps, features = [attention(tiling, seed + i) for i in range(2)], noise(tiling, seed)
    (found,) = select([tiling], maps[:1], maps[1:], budget, policy, partitions="base", features=[lambda: features])
    base = [each[:1] for each in maps]
    (expected,) = select([alone], base[:1], base[1:], budget, policy, features=[lambda: features[:1]])
    assert found.gather.tolist() == expected.gather.tolist()
    assert found.places.tolist() == expected.places.tolist()
    assert (found.budget, found.eligible, found.newlines) == (expected.budget, 16, 0)
    assert found.tiling == alone


def test_one_tile_is_seen(model: hired_runtime.Model, tiles: list[int]) -> None:
    for partitions, expected in (("all", 5), ("base", 1)):
        options = {"visual_tokens": "40%", "partitions": partitions, "max_new_tokens": 1}
        (selection,) = model.ask("What is it?", [picture(224, 224)], **options).selections
        assert tiles.pop() == expected == selection.tiling.tiles == len(selection.counts)
    assert selection.budget == selection.kept == round(0.4 * 64)


@pytest.mark.parametrize("policy", ["hired", "uniform", "scope", "spatial-pooling", "full"])
def test_the_pipeline_chooses_from_the_base_tile(policy: str, model: hired_runtime.Model) -> None:
    """As from the whole picture's maps and features with the sub-images cut off."""
    budget = "100%" if policy == "full" else "40%"
    image, pipeline = picture(224, 150), model.pipeline
    (found,) = pipeline.look(Request((), [image], budget, policy, partitions="base"))
    whole = pipeline.see([image], parse_budget("100%"), None, Timings())
    (cut,) = whole.select(parse_budget(budget), policy, 0.5, None, "base")
    assert found.gather.tolist() == cut.gather.tolist()
    alone = tile(150, 224, pipeline.manifest.vision.tiling.base_picture)
    own, features = whole.maps[0], all_features(whole.tilings[0], whole.gather[0])
    expected = select(
        [alone],
        [own.allocation[:1]],
        [own.selection[:1]],
        budget,
        policy,
        features=[lambda: features[:1]],
    )[0]
    assert found.gather.tolist() == expected.gather.tolist()
    assert found.visual_tokens == {"full": 64, "spatial-pooling": 5 * 5}.get(policy, 26)


def test_the_answer_is_that_of_the_kept_base_tokens(model: hired_runtime.Model) -> None:
    """All of them: as if a budget of 64 with everything given to the base picture, without newlines."""
    base = model.ask("What is it?", [picture(224, 150)], visual_tokens="100%", partitions="base", max_new_tokens=4)
    all_base = {"visual_tokens": 64, "policy": "hired", "alpha": 1, "newlines": "none"}
    same = model.ask("What is it?", [picture(224, 150)], max_new_tokens=4, **all_base)
    assert same.selections[0].counts == [64, 0, 0, 0, 0]
    assert base.tokens == same.tokens


def test_a_model_opened_for_few_tokens_takes_the_whole_base_picture() -> None:
    """20 % of five tiles are 64 positions: the base picture's own 100 %."""
    model = hired_runtime.open(BUNDLE, visual_tokens="20%", threads=1)
    options = {"visual_tokens": "100%", "max_new_tokens": 1}
    answer = model.ask("What is it?", [picture(224, 224)], partitions="base", **options)
    assert answer.selections[0].visual_tokens == model.limits.visual_tokens == 64
    with pytest.raises(LimitError, match="visual tokens asked for"):
        model.ask("What is it?", [picture(224, 224)], **options)


@pytest.mark.parametrize("newlines", [name for name in NEWLINES if name != "none"])
def test_one_tile_has_no_rows_to_end(newlines: str, model: hired_runtime.Model) -> None:
    with pytest.raises(InputError, match="for one tile"):
        model.ask("What is it?", [picture(90, 90)], visual_tokens=20, partitions="base", newlines=newlines)


def test_what_is_no_choice_of_partitions() -> None:
    with pytest.raises(InputError, match="partitions 'tiles'; expected all, base; pass another --partitions"):
        Request((), partitions="tiles")
    tiling = tile(90, 90, SMALL)
    maps = [attention(tiling, 0)]
    with pytest.raises(InputError, match="partitions"):
        select([tiling], maps, maps, 10, partitions="tiles")
    assert Budget(percent=Fraction(50)).max_tokens(SMALL.base_picture) == 8
