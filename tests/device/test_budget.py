from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.budget import Budget, allocate, apportion, exact_weights, parse_alpha, parse_budget
from hired_edge.errors import InputError
from hired_edge.tiling import Tiling, TilingRules, tile

NEXT = TilingRules("anyres", 336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SINGLE = TilingRules("single", 336, 14)
HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("576", Budget(absolute=576)),
        (576, Budget(absolute=576)),
        ("0", Budget(absolute=0)),
        (" 12 ", Budget(absolute=12)),
        ("20%", Budget(percent=Fraction(20))),
        ("33.3%", Budget(percent=Fraction(333, 10))),
        ("0%", Budget(percent=Fraction(0))),
        ("0.000000001%", Budget(percent=Fraction(1, 10**9))),
        ("100%", Budget(percent=Fraction(100))),
        ("100.00 %", Budget(percent=Fraction(100))),
    ],
)
def test_budget_is_read(text: str | int, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-5%",
        "101%",
        "100.1%",
        "abc",
        "",
        "%",
        "20.5",
        "nan%",
        "inf",
        "1e3",
        "1_000",
        "0x10",
        "٣",
        "1" * 5000,
        -3,
        True,
    ],
)
def test_budget_that_is_none_is_refused(text: str | int) -> None:
    with pytest.raises(InputError, match="visual-token budget"):
        parse_budget(text)


@given(st.integers(0, 99), st.integers(0, 10**18 - 1))
def test_percentage_survives_being_written(whole: int, decimals: int) -> None:
    budget = parse_budget(f"{whole}.{decimals:018d}%")
    assert parse_budget(str(budget)) == budget
    assert budget.percent == whole + Fraction(decimals, 10**18)


@pytest.mark.parametrize(
    ("text", "width", "height", "tokens"),
    [
        ("20%", 672, 672, 576),
        ("70%", 672, 672, 2016),  # the float product 5 * 576 * 0.7 truncates to 2015
        ("20%", 1008, 336, 461),  # 460.8
        ("12.5%", 336, 336, 216),
        ("0.1%", 672, 672, 3),  # 2.88
        ("1.0243055%", 672, 672, 29),  # 29.4999984
        ("99.99%", 672, 672, 2880),  # 2879.7, not the stock sequence
        ("100%", 672, 672, 2928),
        ("100%", 5000, 20, 576),
        ("100%", 20, 5000, 648),
        ("0%", 672, 672, 0),
    ],
)
def test_percentage_of_a_picture(text: str, width: int, height: int, tokens: int) -> None:
    assert parse_budget(text).tokens([tile(height, width, NEXT)]) == tokens


def test_percentage_is_rounded_half_up() -> None:
    rules = TilingRules("single", 28, 14)  # four patches: 12.5 % is half a token
    assert parse_budget("12.5%").tokens([tile(1, 1, rules)]) == 1
    assert parse_budget("12.4%").tokens([tile(1, 1, rules)]) == 0
    assert parse_budget("37.5%").tokens([tile(1, 1, rules)]) == 2


def test_percentage_is_rounded_for_each_picture() -> None:
    picture = tile(336, 1008, NEXT)  # 460.8 tokens at 20 %
    assert parse_budget("20%").tokens([picture, picture]) == 922
    assert parse_budget("20%").split([picture, picture], [2304, 2304]) == [461, 461]


@pytest.mark.parametrize(
    ("text", "pictures", "tokens"), [("20%", 1, 576), ("20%", 3, 1728), ("100%", 2, 5856), ("700", 4, 700)]
)
def test_largest_request(text: str, pictures: int, tokens: int) -> None:
    assert parse_budget(text).max_tokens(NEXT, pictures) == tokens


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=3), st.integers(0, 100))
def test_no_request_exceeds_the_largest(sizes: list[tuple[int, int]], percent: int) -> None:
    budget = parse_budget(f"{percent}%")
    assert budget.tokens([tile(*size, NEXT) for size in sizes]) <= budget.max_tokens(NEXT, len(sizes))


def pictures(*sizes: tuple[int, int]) -> list[Tiling]:
    return [tile(height, width, NEXT) for width, height in sizes]


@pytest.mark.parametrize(
    ("budget", "usable", "shares"),
    [
        (800, [2928, 1176], [500, 300]),  # 2880 and 1728 patches: 5 to 3
        (801, [2928, 1176], [501, 300]),  # 500.625 and 300.375
        (0, [2928, 1176], [0, 0]),
        (800, [2928, 100], [700, 100]),
        (800, [100, 1176], [100, 700]),
        (4104, [2928, 1176], [2928, 1176]),
        (4112, [2928, 1176], [2933, 1179]),  # eight positions nobody can use
    ],
)
def test_absolute_budget_is_shared_between_pictures(budget: int, usable: list[int], shares: list[int]) -> None:
    assert Budget(absolute=budget).split(pictures((672, 672), (336, 336)), usable) == shares


def test_single_family_takes_percentages_of_one_tile() -> None:
    assert parse_budget("20%").tokens([tile(100, 100, SINGLE)]) == 115
    assert parse_budget("100%").tokens([tile(100, 100, SINGLE)]) == 576


@pytest.mark.parametrize(
    ("amount", "weights", "shares"),
    [
        (11, [10, 6, 4, 0], [6, 3, 2, 0]),  # 5.5, 3.3, 2.2, 0
        (10, [1, 1, 1], [4, 3, 3]),
        (2, [1, 1, 1, 1], [1, 1, 0, 0]),
        (5, [0, 0], [3, 2]),
        (7, [0, 3], [0, 7]),
        (0, [1, 2], [0, 0]),
        (0, [], []),
    ],
)
def test_largest_remainders(amount: int, weights: list[int], shares: list[int]) -> None:
    assert apportion(amount, weights) == shares


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6))
def test_exact_weights_keep_proportions(scores: list[float]) -> None:
    weights = exact_weights(scores)
    assert all(
        Fraction(scores[i]) * weights[j] == Fraction(scores[j]) * weights[i]
        for i in range(len(scores))
        for j in range(len(scores))
    )
    assert [weight > 0 for weight in weights] == [score > 0 for score in scores]


@pytest.mark.parametrize(
    ("alpha", "exact"),
    [(0.5, HALF), (0.1, Fraction(1, 10)), ("0.3", Fraction(3, 10)), (0, Fraction(0)), (1, Fraction(1))],
)
def test_alpha_means_what_is_written(alpha: float | str, exact: Fraction) -> None:
    assert parse_alpha(alpha) == exact


@pytest.mark.parametrize("alpha", [-0.1, 1.0001, float("nan"), float("inf"), "half", "1/0", ""])
def test_alpha_out_of_range_is_refused(alpha: float | str) -> None:
    with pytest.raises(InputError, match="alpha"):
        parse_alpha(alpha)


# Worked by hand: 16 patches a partition, scores 10, 6, 4, 0.
@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        (20, [10, 5, 3, 2, 0]),
        (21, [10, 6, 3, 2, 0]),
        # 30 | 15, 9, 6, 0. The base's surplus of 14 adds 7, 4, 3, 0, then 6 over adds 4, 2, then 1 over adds 1.
        (60, [16, 16, 16, 12, 0]),
        (70, [16, 16, 16, 16, 6]),
        (80, [16] * 5),
        (500, [16] * 5),
        (1, [0, 1, 0, 0, 0]),
        (0, [0] * 5),
    ],
)
def test_worked_example(budget: int, counts: list[int]) -> None:
    assert allocate(budget, [10, 6, 4, 0], [16] * 5, HALF) == counts


@pytest.mark.parametrize(
    ("budget", "scores", "capacities", "alpha", "counts"),
    [
        (10, [1, 1], [16, 16, 16], Fraction(0), [0, 5, 5]),
        (10, [1, 1], [16, 16, 16], Fraction(1), [10, 0, 0]),
        (20, [3, 1], [16, 16, 16], Fraction(1), [16, 3, 1]),
        (40, [3, 1], [16, 16, 16], Fraction(0), [8, 16, 16]),  # only the base has room
        (9, [0, 0], [16, 16, 16], HALF, [4, 3, 2]),  # no attention at all: equally
        (9, [5, 0], [16, 0, 16], HALF, [4, 0, 5]),  # the scored one has no patches
        (9, [0, 0], [16, 0, 0], HALF, [9, 0, 0]),
        (9, [], [16], HALF, [9]),
        (99, [], [16], Fraction(0), [16]),
    ],
)
def test_edges_are_defined(
    budget: int, scores: list[int], capacities: list[int], alpha: Fraction, counts: list[int]
) -> None:
    assert allocate(budget, scores, capacities, alpha) == counts


def slow_allocate(budget: int, scores: list[int], capacities: list[int], alpha: Fraction) -> list[int]:
    """The paper's formula and the redistribution, one token at a time, in fractions."""
    budget = min(budget, sum(capacities))
    base = int(alpha * budget)
    counts, spare, first = [base] + [0] * len(scores), budget - base, True
    while spare or first:
        first = False
        room = [i for i in range(1, len(capacities)) if counts[i] < capacities[i]]
        if not room:
            counts[0] += spare
            room = [0]
        else:
            weights = {i: Fraction(scores[i - 1]) for i in room}
            if not sum(weights.values()):
                weights = dict.fromkeys(room, Fraction(1))
            quotas = {i: spare * weights[i] / sum(weights.values()) for i in room}
            given = {i: quotas[i].numerator // quotas[i].denominator for i in room}
            while sum(given.values()) < spare:
                neediest = max(room, key=lambda i: (quotas[i] - given[i], -i))
                given[neediest] += 1
            for i in room:
                counts[i] += given[i]
        spare = 0
        for i, capacity in enumerate(capacities):
            while counts[i] > capacity:
                counts[i], spare = counts[i] - 1, spare + 1
    return counts


PARTITIONS = st.integers(0, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.integers(0, 20), min_size=k, max_size=k),
        st.lists(st.integers(0, 30), min_size=k + 1, max_size=k + 1),
    )
)
ALPHAS = st.fractions(0, 1, max_denominator=20)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), PARTITIONS, ALPHAS)
def test_equals_the_slow_loop(budget: int, partitions: tuple[list[int], list[int]], alpha: Fraction) -> None:
    scores, capacities = partitions
    assert allocate(budget, scores, capacities, alpha) == slow_allocate(budget, scores, capacities, alpha)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), PARTITIONS, ALPHAS)
def test_spends_exactly_the_budget(budget: int, partitions: tuple[list[int], list[int]], alpha: Fraction) -> None:
    scores, capacities = partitions
    counts = allocate(budget, scores, capacities, alpha)
    assert sum(counts) == min(budget, sum(capacities))
    assert all(0 <= count <= capacity for count, capacity in zip(counts, capacities, strict=True))
