"""Limits: the derivation against the specification's numbers, smaller openings, and requests over a limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.budget import Budget, parse_budget
from hired_edge.errors import InputError, LimitError
from hired_edge.limits import Limits, check_request, derive_limits, max_sequence_length, resolve_opening
from hired_edge.tiling import TilingRules, tile
from tests.tiny.manifests import LLAVA, LLAVA_NEXT


def derive(*budgets: str, rules: TilingRules = LLAVA_NEXT, images: int = 1, batch: int = 1) -> Limits:
    parsed = [parse_budget(budget) for budget in budgets]
    return derive_limits(rules, parsed, text_tokens=256, new_tokens=128, images=images, batch=batch)


@pytest.mark.parametrize(
    ("budgets", "visual"),
    [
        (("20%",), 576),  # of 5 * 576 = 2880
        (("40%",), 1152),
        (("33.3%",), 959),  # 959.04
        (("99.99%",), 2880),  # 2879.712
        (("100%",), 2928),  # the longest stock sequence, newlines included
        (("576",), 576),
        (("20%", "700", "10%"), 700),
        (("0",), 0),
    ],
)
def test_visual_tokens_of_llava_next(budgets: tuple[str, ...], visual: int) -> None:
    limits = derive(*budgets)
    assert limits.visual_tokens == visual
    assert limits.tiles == 5
    assert limits.budgets == budgets


@pytest.mark.parametrize(("budget", "visual"), [("20%", 115), ("40%", 230), ("100%", 576), ("64", 64)])
def test_visual_tokens_of_llava(budget: str, visual: int) -> None:
    limits = derive(budget, rules=LLAVA)
    assert (limits.visual_tokens, limits.tiles) == (visual, 1)


def test_a_percentage_is_for_each_picture_and_a_number_for_all() -> None:
    assert derive("20%", images=3).visual_tokens == 3 * 576
    assert derive("100%", images=3).visual_tokens == 3 * 2928
    assert derive("576", images=3).visual_tokens == 576


def test_half_a_token_is_rounded_up() -> None:
    assert derive("0.5%", rules=TilingRules("single", 10, 1)).visual_tokens == 1  # half of 1
    assert derive("2.5%", rules=TilingRules("single", 10, 1)).visual_tokens == 3  # 2.5


def test_the_formula_is_written_out() -> None:
    limits = derive("20%")
    assert limits.formula == "ceil64(576 visual + 256 text + 128 new) = 960"
    assert limits.max_sequence_length == 960
    assert derive("577").formula == "ceil64(577 visual + 256 text + 128 new) = 1024"


@given(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**5))
def test_sequence_length_is_the_next_multiple_of_64(visual: int, text: int, new: int) -> None:
    length = max_sequence_length(visual, text, new)
    assert length % 64 == 0
    assert 0 <= length - (visual + text + new) < 64


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=3),
    budget=st.builds(Budget, percent=st.fractions(0, 100, max_denominator=10))
    | st.builds(Budget, st.integers(0, 5000)),
    rules=st.sampled_from([LLAVA, LLAVA_NEXT]),
)
def test_no_picture_is_allowed_more_than_the_limit(
    sizes: list[tuple[int, int]], budget: Budget, rules: TilingRules
) -> None:
    limits = derive_limits(rules, [budget], text_tokens=1, new_tokens=1, images=len(sizes))
    assert budget.tokens([tile(height, width, rules) for height, width in sizes]) <= limits.visual_tokens


def test_limits_that_contradict_their_formula() -> None:
    limits = derive("20%")
    for change in ({"max_sequence_length": 1024}, {"text_tokens": 257}, {"formula": "960"}):
        with pytest.raises(InputError, match="by the formula"):
            replace(limits, **change)


def test_numbers_below_their_least() -> None:
    with pytest.raises(InputError, match="batch is 0; expected 1 or more"):
        derive("20%", batch=0)
    with pytest.raises(InputError, match="no budget"):
        derive()


def test_opening_with_less() -> None:
    exported = derive("20%", "40%", images=2, batch=4)
    assert resolve_opening(exported, LLAVA_NEXT) == exported
    opened = resolve_opening(exported, LLAVA_NEXT, visual=parse_budget("20%"), batch=1, images=1)
    assert (opened.visual_tokens, opened.batch, opened.images) == (576, 1, 1)
    assert opened.formula == "ceil64(576 visual + 256 text + 128 new) = 960"
    assert opened.budgets == ("20%",)
    assert resolve_opening(exported, LLAVA_NEXT, visual=parse_budget("100")).max_sequence_length == 512
    assert resolve_opening(exported, LLAVA_NEXT, text_tokens=64, new_tokens=1).text_tokens == 64


def test_fewer_pictures_lower_a_percentage() -> None:
    exported = derive("20%", images=4)
    assert resolve_opening(exported, LLAVA_NEXT, visual=parse_budget("20%")).visual_tokens == 4 * 576
    assert resolve_opening(exported, LLAVA_NEXT, visual=parse_budget("80%"), images=1).visual_tokens == 4 * 576


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"visual": parse_budget("577")}, "577 visual tokens asked for; expected at most 576"),
        ({"visual": parse_budget("21%")}, "605 visual tokens"),
        ({"visual": parse_budget("100%")}, "2928 visual tokens"),
        ({"batch": 2}, "2 batch rows asked for; expected at most 1"),
        ({"images": 2}, "2 pictures"),
        ({"text_tokens": 257}, "257 text tokens asked for; expected at most 256"),
        ({"new_tokens": 129}, "129 new tokens asked for; expected at most 128"),
    ],
)
def test_opening_with_more_is_refused(asked: dict, message: str) -> None:
    with pytest.raises(LimitError) as caught:
        resolve_opening(derive("20%"), LLAVA_NEXT, **asked)
    assert message in str(caught.value)
    assert "export again" in str(caught.value)


def test_opening_with_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="batch is 0"):
        resolve_opening(derive("20%"), LLAVA_NEXT, batch=0)


def test_a_request_at_every_limit_fits() -> None:
    check_request(derive("20%", batch=2, images=3), visual=1728, text=256, new=128, batch=2, images=3, tiles=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual": 577}, "577 visual tokens asked for; expected at most 576"),
        ({"visual": 0, "text": 257}, "257 text tokens asked for; expected at most 256"),
        ({"visual": 0, "new": 129}, "129 new tokens asked for; expected at most 128"),
        ({"batch": 2}, "2 batch rows asked for; expected at most 1"),
        ({"images": 2}, "2 pictures asked for; expected at most 1"),
        ({"tiles": 6}, "6 tiles of a picture asked for; expected at most 5"),
    ],
)
def test_a_request_over_a_limit_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(LimitError) as caught:
        check_request(derive("20%"), **{"visual": 576, "text": 256, "new": 128, **change})
    assert message in str(caught.value)
