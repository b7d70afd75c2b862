"""What holds for every policy that looks at features: how many it keeps, of what, and that scale makes no difference.

And the cosines that they look at: exact for narrow features, near for wide ones.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.policies import POLICIES
from hired_edge.policies.policy import View
from hired_edge.policies.similarity import unit_rows
from hired_edge.selection import select
from hired_edge.tiling import TilingRules, tile
from tests.tiny.pictures import attention, view

HALF = Fraction(1, 2)
SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SINGLE = TilingRules("single", 56, 14)
SIDES, SEEDS = st.integers(1, 400), st.integers(0, 10**6)
COMPARING = sorted(name for name, policy in POLICIES.items() if policy.needs)
STRICT = [name for name in COMPARING if POLICIES[name].strict]


def test_which_policies_compare() -> None:
    assert {"divprune", "holov", "prumerge", "prumerge+", "scope", "vispruner"} <= set(COMPARING)
    assert set(COMPARING) - set(STRICT) == {"prumerge", "prumerge+"}


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize("rules", [SMALL, SINGLE])
@settings(max_examples=15, deadline=None)
@given(height=SIDES, width=SIDES, seed=SEEDS, tokens=st.integers(0, 100), flat=st.booleans())
def test_exactly_the_budget_and_never_padding(
    name: str, rules: TilingRules, height: int, width: int, seed: int, tokens: int, flat: bool
) -> None:
    """Of features that are all alike, or all 0, too."""
    tiling = tile(height, width, rules)
    seen = replace(view(tiling, seed), selection_attention=attention(tiling, seed))
    if flat:
        constant = np.full((tiling.tiles, 16, 5), seed % 2, np.float32)
        seen = replace(seen, features=lambda: constant)
    mask = POLICIES[name].prepare(seen, HALF)(tokens)
    assert mask.sum() == min(tokens, tiling.eligible_tokens)
    assert not (mask & ~tiling.eligible).any()
    keep = POLICIES[name].prepare(seen, HALF)  # asked for other numbers before
    assert [keep(other).sum() for other in (100, 7, 0)] == [min(other, tiling.eligible_tokens) for other in (100, 7, 0)]
    assert (keep(tokens) == mask).all()


@pytest.mark.parametrize("name", [name for name in COMPARING if not POLICIES[name].uses_alpha])
@settings(max_examples=15, deadline=None)
@given(height=SIDES, width=SIDES, seed=SEEDS)
def test_allocation_and_alpha_play_no_part(name: str, height: int, width: int, seed: int) -> None:
    one = view(tile(height, width, SMALL), seed)
    other = replace(one, allocation_attention=attention(one.tiling, seed))
    tokens = one.tiling.patches if name not in STRICT else 20
    masks = [POLICIES[name].prepare(seen, alpha)(tokens) for seen, alpha in ((one, Fraction(0)), (other, Fraction(1)))]
    assert (masks[0] == masks[1]).all()


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("scale", [2.0**-20, 0.3, 7.1, 2.0**20])
def test_the_scale_of_features_makes_no_difference(name: str, scale: float) -> None:
    seen = view(tile(100, 90, SMALL), 11)
    assert seen.keys is not None
    own = seen.all_features() * np.float32(scale)
    scaled = replace(seen, features=lambda: own, keys=seen.keys * np.float32(scale))
    policy, tokens = POLICIES[name], (30 if name in STRICT else seen.tiling.patches)
    masks = [policy.prepare(each, HALF)(tokens) for each in (seen, scaled)]
    assert (masks[0] == masks[1]).all()
    if policy.merge is not None:
        one, other = (policy.merge(each, masks[0]) for each in (seen, scaled))
        for a, b in zip(one, other, strict=True):
            assert a.tolist() == b.tolist()


@pytest.mark.parametrize("name", COMPARING)
def test_padding_features_play_no_part(name: str) -> None:
    seen = view(tile(60, 112, TilingRules("anyres", 56, 14, ((112, 112),))), 3)
    assert not seen.tiling.eligible.all()
    assert seen.keys is not None
    padding = ~seen.tiling.eligible[..., None]
    own, keys = np.where(padding, np.float32(1e3), seen.all_features()), np.where(padding, np.float32(1e3), seen.keys)
    loud = np.where(padding[..., 0], np.float32(1e3), seen.selection_attention)
    other = replace(seen, features=lambda: own, keys=keys, selection_attention=loud)
    policy, tokens = POLICIES[name], (30 if name in STRICT else seen.tiling.patches)
    masks = [policy.prepare(each, HALF)(tokens) for each in (seen, other)]
    assert (masks[0] == masks[1]).all()
    if policy.merge is not None:
        one, more = (policy.merge(each, masks[0]) for each in (seen, other))
        assert one.source.tolist() == more.source.tolist()


@pytest.mark.parametrize("name", STRICT)
def test_the_base_picture_alone_is_chosen_from_as_one_tile(name: str) -> None:
    whole = view(tile(100, 90, SMALL), 4)
    base = View(
        tile(100, 90, SINGLE),
        whole.allocation_attention[:1],
        whole.selection_attention[:1],
        lambda: whole.all_features()[:1],
    )
    found, expected = (
        select(
            [seen.tiling],
            [seen.allocation_attention],
            [seen.selection_attention],
            7,
            name,
            partitions=partitions,
            features=[seen.all_features],
        )[0]
        for seen, partitions in ((whole, "base"), (base, "all"))
    )
    assert found.gather.tolist() == expected.gather.tolist()
    assert found.places.tolist() == expected.places.tolist()
    assert (found.tiling.stock_tokens, found.newlines, found.kept) == (16, 0, 7)


# Similarities.


def cosines(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide @ wide.T


@pytest.mark.parametrize("width", [1, 3, 256, 511, 512])
def test_cosines_of_narrow_features_are_exact(width: int) -> None:
    rows = np.random.default_rng(width).standard_normal((50, width)).astype(np.float32) * np.float32(30)
    unit = unit_rows(rows)
    assert unit.shape == rows.shape
    np.testing.assert_allclose(unit @ unit.T, cosines(rows), atol=1e-5)


@pytest.mark.parametrize("width", [513, 700, 1000, 4096, 5120])
@pytest.mark.parametrize("shared", [0.0, 1.0, 3.0])
def test_cosines_of_wide_features_are_near(width: int, shared: float) -> None:
    """A sketch of 256 columns: off by 1/16 in the mean square at most, by 5 of those at worst of some thousand pairs.

    `shared`: how much all rows have in common, as a model's features do. The error is of the share that is not common.
    """
    random = np.random.default_rng(width)
    rows = random.standard_normal((60, width)) + shared * random.standard_normal(width)
    rows = (rows * random.uniform(0.1, 30, (60, 1))).astype(np.float32)
    unit = unit_rows(rows)
    assert unit.shape == (60, 257)
    right = cosines(rows)[np.triu_indices(60, 1)]
    error = (unit @ unit.T)[np.triu_indices(60, 1)] - right
    apart = min(1, 2 * (1 - right.mean()))  # twice: what is common is estimated from an eighth of the rows
    assert np.sqrt((error**2).mean()) <= apart / 16
    assert np.abs(error).max() <= 5 * apart / 16
    np.testing.assert_allclose((unit**2).sum(axis=1), 1, atol=1e-5)


def test_columns_of_one_sign_do_not_make_everything_alike() -> None:
    """Sums of positive columns would: signs of their own keep the cosines, here of 0.75, where they are."""
    rows = np.random.default_rng(1).uniform(0, 1, (60, 4096)).astype(np.float32)
    unit, pairs = unit_rows(rows), np.triu_indices(60, 1)
    assert cosines(rows)[pairs].mean() == pytest.approx(0.75, abs=0.01)
    error = (unit @ unit.T - cosines(rows))[pairs]
    assert np.sqrt((error**2).mean()) <= 1 / 16


def test_likes_stay_likes_in_a_sketch() -> None:
    """Equal, opposite and zero rows, whatever their lengths."""
    row = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    unit = unit_rows(np.stack([row, 8 * row, -row, 0 * row]))
    np.testing.assert_allclose(unit @ unit[0], [1, 1, -1, 0], atol=1e-5)


def test_zeros_stay_zeros() -> None:
    assert not unit_rows(np.zeros((2, 8), np.float32)).any()
