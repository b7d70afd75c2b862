"""PruMerge and PruMerge+ against plain loops: which patches stand out, what is added, and what each is merged with."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from hired_edge.errors import InputError, LimitError
from hired_edge.policies import POLICIES
from hired_edge.policies.policy import Merge, View
from hired_edge.selection import select
from hired_edge.tiling import TilingRules, tile
from tests.tiny.pictures import view

HALF = Fraction(1, 2)
SMALL = TilingRules("anyres", 112, 14, ((112, 224), (224, 224)))
SINGLE = TilingRules("single", 112, 14)


def picture(size: tuple[int, int], seed: int, rules: TilingRules = SMALL) -> View:
    """Attention with a long tail, as a tower's is: a few patches of every tile stand out."""
    seen = view(tile(*size, rules), seed)
    attention = np.exp(1.3 * np.random.default_rng(seed).standard_normal(seen.selection_attention.shape))
    return replace(seen, selection_attention=attention.astype(np.float32))


def quartile(values: list[float], share: float) -> float:
    """Between the two nearest of the sorted values, in proportion."""
    at = share * (len(values) - 1)
    low, high = sorted(values)[math.floor(at)], sorted(values)[math.ceil(at)]
    return low + (at - math.floor(at)) * (high - low)


def slow_kept(seen: View, p: int, plus: bool) -> list[int]:
    """The kept patches of tile p."""
    eligible = np.flatnonzero(seen.tiling.eligible[p]).tolist()
    if not eligible:
        return []
    attention = {j: float(seen.selection_attention[p, j]) for j in eligible}
    first, third = (quartile(list(attention.values()), share) for share in (0.25, 0.75))
    kept = {j for j in eligible if attention[j] > third + 1.5 * (third - first)}
    kept.add(max(eligible, key=lambda j: attention[j]))
    if plus:
        step = max(1, len(eligible) // len(kept) // 3)
        last = len(seen.tiling.eligible[p]) - 1
        kept |= {j for j in range(0, last, step) if j in attention}
    return sorted(kept)


def slow_merge(seen: View, kept: list[list[int]]) -> NDArray[np.float64]:
    """What every kept patch becomes, (T*N, T*N): itself, and its 32 nearest by their shares of the tile's attention."""
    patches = seen.tiling.rules.patches_per_tile
    weights = np.zeros((seen.tiling.patches, seen.tiling.patches))
    assert seen.keys is not None
    for p, own in enumerate(kept):
        keys, eligible = seen.keys[p].astype(np.float64), np.flatnonzero(seen.tiling.eligible[p]).tolist()
        for i in own:
            like = {
                j: float(keys[i] @ keys[j]) / float((keys[i] @ keys[i]) * (keys[j] @ keys[j])) ** 0.5
                for j in eligible
                if j != i
            }
            weights[p * patches + i, p * patches + i] = 1
            for j in sorted(like, key=lambda j: -like[j])[:32]:
                share = seen.selection_attention[p, j] / seen.selection_attention[p].sum(dtype=np.float64)
                weights[p * patches + i, p * patches + j] = share
    return weights


def dense(merge: Merge, patches: int) -> NDArray[np.float64]:
    weights = np.zeros((patches, patches))
    np.add.at(weights, (merge.target, merge.source), merge.weight.astype(np.float64))
    return weights


@pytest.mark.parametrize("name", ["prumerge", "prumerge+"])
@pytest.mark.parametrize(("size", "rules"), [((150, 200), SMALL), ((60, 200), SMALL), ((50, 50), SINGLE)])
def test_as_the_slow_loops(name: str, size: tuple[int, int], rules: TilingRules) -> None:
    seen, policy = picture(size, 5, rules), POLICIES[name]
    mask = policy.prepare(seen, HALF)(seen.tiling.patches)
    kept = [slow_kept(seen, p, name == "prumerge+") for p in range(seen.tiling.tiles)]
    assert [np.flatnonzero(own).tolist() for own in mask] == kept
    assert sum(map(len, kept)) < seen.tiling.eligible_tokens / 2
    assert policy.merge is not None
    found = dense(policy.merge(seen, mask), seen.tiling.patches)
    np.testing.assert_allclose(found, slow_merge(seen, kept), rtol=1e-6)


def test_a_worked_example() -> None:
    """64 patches of attention 1 but for 9 and 11 of more: quartiles 1 and 1. With +, a step of 64 // 2 // 3 = 10."""
    attention = np.ones((1, 64), np.float32)
    attention[0, [9, 11]] = 2, 3
    seen = replace(picture((50, 50), 0, SINGLE), selection_attention=attention)
    found = {
        name: np.flatnonzero(POLICIES[name].prepare(seen, HALF)(64)).tolist() for name in ("prumerge", "prumerge+")
    }
    assert found["prumerge"] == [9, 11]
    assert found["prumerge+"] == [0, 9, 10, 11, 20, 30, 40, 50, 60]


def test_a_tile_without_an_outlier_keeps_its_most_attended_patch() -> None:
    seen = replace(picture((224, 224), 0), selection_attention=np.ones((5, 64), np.float32))
    mask = POLICIES["prumerge"].prepare(seen, HALF)(320)
    assert [np.flatnonzero(own).tolist() for own in mask] == [[0]] * 5


def test_a_tile_of_few_patches_merges_all_of_them() -> None:
    """Sixteen in the window of each of two tiles: fifteen neighbours."""
    seen = picture((56, 448), 1, TilingRules("anyres", 112, 14, ((112, 224),)))
    assert seen.tiling.eligible.sum(axis=1).tolist() == [64, 16, 16]
    policy = POLICIES["prumerge"]
    mask = policy.prepare(seen, HALF)(96)
    assert policy.merge is not None
    merge = policy.merge(seen, mask)
    for patch in np.flatnonzero(mask.reshape(-1)):
        assert np.count_nonzero(merge.target == patch) == (33 if patch < 64 else 16)
    assert seen.tiling.eligible.reshape(-1)[merge.source].all()


@pytest.mark.parametrize("newlines", ["none", "kept-rows"])
def test_the_picture_decides_how_many(newlines: str) -> None:
    """A budget that has no room for them is refused; of a larger one the rest is not used."""
    seen = picture((150, 200), 2)
    maps = [seen.allocation_attention], [seen.selection_attention]

    def chosen(budget: int) -> int:
        (found,) = select(
            [seen.tiling], *maps, budget, "prumerge", newlines=newlines, features=[seen.all_features], keys=[seen.keys]
        )
        return found.visual_tokens

    needed = chosen(seen.tiling.stock_tokens)
    assert needed < 100
    assert chosen(needed) == chosen(needed + 1) == needed
    with pytest.raises(LimitError, match=r"keeps \d+ tokens of this picture; expected a budget with room for them and"):
        chosen(needed - 1)


def test_without_keys_it_is_refused_unless_nothing_is_chosen() -> None:
    seen = picture((150, 200), 2)
    maps = [seen.allocation_attention], [seen.selection_attention]
    for name in ("prumerge", "prumerge+"):
        with pytest.raises(
            InputError, match=rf"'{re.escape(name)}' with a bundle .* no keys; .* again with --with-keys"
        ):
            select([seen.tiling], *maps, 100, name, features=[seen.all_features])
        (stock,) = select([seen.tiling], *maps, "100%", name)
        assert stock.visual_tokens == seen.tiling.stock_tokens
