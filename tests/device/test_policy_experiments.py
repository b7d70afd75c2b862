"""Experiments with HiRED, one choice changed in each: what they share with it, and the change against a plain loop."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.merging import merge_rows
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import Merge
from hired_edge.tiling import TilingRules, tile
from tests.tiny.pictures import view

SMALL = TilingRules("anyres", 56, 14, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
SIDES, SEEDS, TOKENS = st.integers(1, 400), st.integers(0, 10**6), st.integers(0, 100)
ALPHAS = st.fractions(0, 1, max_denominator=10)


@pytest.mark.parametrize("name", ["hired-placed", "hired-merging"])
@settings(max_examples=30, deadline=None)
@given(height=SIDES, width=SIDES, seed=SEEDS, tokens=TOKENS, alpha=ALPHAS)
def test_the_tokens_are_hireds(name: str, height: int, width: int, seed: int, tokens: int, alpha: Fraction) -> None:
    seen = view(tile(height, width, SMALL), seed)
    found, expected = (POLICIES[policy].prepare(seen, alpha)(tokens) for policy in (name, "hired"))
    assert (found == expected).all()


@settings(max_examples=20, deadline=None)
@given(SIDES, SIDES, SEEDS, TOKENS, ALPHAS)
def test_covering_keeps_as_many_of_each_tile_as_hired_and_scopes_picks(
    height: int, width: int, seed: int, tokens: int, alpha: Fraction
) -> None:
    """A tile's picks do not depend on how many there are: the longer of two masks holds the shorter."""
    tiling = tile(height, width, SMALL)
    seen = view(tiling, seed)
    found, hired = (POLICIES[name].prepare(seen, alpha)(tokens) for name in ("hired-covering", "hired"))
    assert found.sum(axis=1).tolist() == hired.sum(axis=1).tolist()
    scope = POLICIES["scope"].prepare(seen, alpha)
    masks = [scope(number) for number in range(tiling.eligible_tokens + 1)]
    for p, own in enumerate(found):
        same = [mask[p] for mask in masks if mask[p].sum() == own.sum()]
        assert any((mask == own).all() for mask in same) or not same


def merged(height: int, width: int, seed: int, tokens: int) -> tuple[np.ndarray, Merge, np.ndarray]:
    seen, policy = view(tile(height, width, SMALL), seed), POLICIES["hired-merging"]
    mask = policy.prepare(seen, Fraction(1, 2))(tokens)
    assert policy.merge is not None
    return mask, policy.merge(seen, mask), seen.all_features()


@pytest.mark.parametrize(("size", "tokens"), [((100, 90), 20), ((112, 40), 7), ((40, 200), 1), ((112, 112), 79)])
def test_what_is_dropped_is_averaged_into_its_nearest(size: tuple[int, int], tokens: int) -> None:
    mask, merge, features = merged(*size, tokens, tokens)
    tiling = tile(*size, SMALL)
    gather = np.flatnonzero(mask.reshape(-1))
    flat = features.reshape(tiling.patches, -1)
    visual = flat[gather]
    merge_rows(visual, gather, merge, lambda rows: flat[rows])
    for row, patch in enumerate(gather.tolist()):
        p = patch // 16
        kept = [p * 16 + j for j in np.flatnonzero(mask[p]).tolist()]
        members = [patch]
        for j in np.flatnonzero(tiling.eligible[p] & ~mask[p]).tolist():
            own = flat[p * 16 + j].astype(np.float64)
            like = {i: float(own @ flat[i]) / float(np.linalg.norm(flat[i].astype(np.float64))) for i in kept}
            if max(like, key=like.__getitem__) == patch:
                members.append(p * 16 + j)
        np.testing.assert_allclose(visual[row], flat[members].mean(axis=0, dtype=np.float64), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, SEEDS, TOKENS)
def test_every_patch_of_a_tile_with_a_kept_one_goes_somewhere(height: int, width: int, seed: int, tokens: int) -> None:
    mask, merge, _ = merged(height, width, seed, tokens)
    eligible = tile(height, width, SMALL).eligible
    expected = (eligible & mask.any(axis=1, keepdims=True)).reshape(-1)
    assert sorted(merge.source.tolist()) == np.flatnonzero(expected).tolist()
    sums = np.bincount(merge.target, merge.weight, mask.size)
    np.testing.assert_allclose(sums, mask.reshape(-1), atol=1e-5)
