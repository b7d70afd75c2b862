"""HoloV against a plain loop of the paper's section 4.1: scores of sixteen runs, their quotas, the overflow."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.packing import stock_gather
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.tiling import Tiling, TilingRules, tile
from tests.tiny.pictures import view

HALF = Fraction(1, 2)
SMALL = TilingRules("anyres", 112, 14, ((112, 224), (224, 224)))
SINGLE = TilingRules("single", 56, 14)


def runs(tiling: Tiling) -> list[list[int]]:
    """The sequence in sixteen runs; the first few are longer by one where sixteen does not divide it."""
    patches = [index for index in stock_gather(tiling).tolist() if index >= 0]
    length, longer = divmod(len(patches), 16)
    found, at = [], 0
    for number in range(16):
        size = length + (number < longer)
        found.append(patches[at : at + size])
        at += size
    return [run for run in found if run]


def slow_scores(seen: View, run: list[int]) -> list[float]:
    """Attention, plus the variance of a patch's similarities (its own counts as 0), scaled to attention's mean."""
    rows = seen.all_features().reshape(seen.tiling.patches, -1)[run].astype(np.float64)
    attention = seen.selection_attention.reshape(-1)[run].astype(np.float64).tolist()
    variances = []
    for i, a in enumerate(rows):
        similar = [0.0 if i == j else (a @ b) / ((a @ a) * (b @ b)) ** 0.5 for j, b in enumerate(rows)]
        mean = sum(similar) / (len(run) - 1)
        variances.append(sum((each - mean) ** 2 for each in similar) / (len(run) - 1))
    scale = (sum(attention) / len(run)) / (sum(variances) / len(run))
    return [own + scale * variance for own, variance in zip(attention, variances, strict=True)]


def slow_quotas(tokens: int, weights: list[float], room: list[int]) -> list[int]:
    """Shares by weight, largest remainders; what exceeds a run goes by the same weights to those with room."""
    counts, spare = [0] * len(room), min(tokens, sum(room))
    while spare:
        open_runs = [i for i, count in enumerate(counts) if count < room[i]]
        total = sum(Fraction(weights[i]) for i in open_runs)
        exact = {i: spare * Fraction(weights[i]) / total for i in open_runs}
        shares = {i: int(share) for i, share in exact.items()}
        for i in sorted(open_runs, key=lambda i: shares[i] - exact[i])[: spare - sum(shares.values())]:
            shares[i] += 1
        for i, share in shares.items():
            counts[i] += share
        spare = sum(max(0, count - most) for count, most in zip(counts, room, strict=True))
        counts = [min(count, most) for count, most in zip(counts, room, strict=True)]
    return counts


def slow(seen: View, tokens: int) -> set[int]:
    cut = runs(seen.tiling)
    scores = [slow_scores(seen, run) for run in cut]
    quotas = slow_quotas(tokens, [sum(each) / len(each) for each in scores], [len(run) for run in cut])
    kept = []
    for run, own, quota in zip(cut, scores, quotas, strict=True):
        kept += sorted(run, key=lambda patch: -own[run.index(patch)])[:quota]
    return set(kept)


@pytest.mark.parametrize(
    ("size", "tokens"), [((224, 200), 60), ((224, 224), 200), ((60, 224), 25), ((112, 50), 90), ((224, 100), 7)]
)
def test_as_the_slow_loop(size: tuple[int, int], tokens: int) -> None:
    seen = view(tile(*size, SMALL), tokens)
    found = POLICIES["holov"].prepare(seen, HALF)(tokens)
    assert set(np.flatnonzero(found).tolist()) == slow(seen, tokens)


def test_a_run_that_is_full_passes_its_rest_on() -> None:
    """Nearly all attention lies in the first run of sixteen: it keeps its 20 patches, the others share the rest."""
    tiling = tile(224, 224, SMALL)
    seen = view(tiling, 3)
    attention = np.where(np.arange(tiling.patches) < 20, 1000, 1).reshape(5, 64).astype(np.float32)
    seen = View(tiling, attention, attention, seen.features)
    mask = POLICIES["holov"].prepare(seen, HALF)(100).reshape(-1)
    counts = [int(mask[run].sum()) for run in runs(tiling)]
    assert counts[0] == 20 == len(runs(tiling)[0])
    assert sum(counts) == 100
    assert max(counts[1:]) - min(counts[1:]) <= 2, "80 among fifteen of equal attention, rounded twice"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**6), st.integers(17, 100))
def test_no_part_of_the_picture_is_left_out(height: int, width: int, seed: int, tokens: int) -> None:
    """Where attention is even, every run keeps some."""
    tiling = tile(height, width, SMALL)
    seen = view(tiling, seed)
    even = np.ones((tiling.tiles, 64), np.float32)
    mask = POLICIES["holov"].prepare(View(tiling, even, even, seen.features), HALF)(tokens).reshape(-1)
    assert all(mask[run].any() for run in runs(tiling))


def test_fewer_patches_than_two_a_run() -> None:
    """One tile of 16: runs of one patch, which has no other to be compared with."""
    seen = view(tile(56, 56, SINGLE), 1)
    for tokens in range(17):
        kept = np.flatnonzero(POLICIES["holov"].prepare(seen, HALF)(tokens)).tolist()
        attention = seen.selection_attention[0].tolist()
        quotas = slow_quotas(tokens, attention, [1] * 16)
        assert kept == [j for j, quota in enumerate(quotas) if quota]
