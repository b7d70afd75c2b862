"""What a visual token of InternVL stands for: the patches that transformers' pixel shuffle puts side by side."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import InternVLConfig
from transformers.models.internvl.modeling_internvl import InternVLModel

from hired_export.families import FAMILIES
from tests.tiny.families.internvl import blocks, summed


@pytest.mark.parametrize("side", [2, 4, 6, 32])
def test_a_token_is_the_block_of_patches_that_its_attention_is_summed_over(side: int) -> None:
    """Each patch's features are its own number's unit vector: where they went can be read off."""
    patches = torch.eye(side**2).reshape(1, side, side, side**2)
    shuffled = InternVLModel.pixel_shuffle(cast(Any, None), patches, scale_factor=0.5)
    tokens = shuffled.reshape(-1, 4, side**2)
    assert tokens.argmax(2).tolist() == blocks(side)
    assert (tokens.sum(2) == 1).all()


def test_every_patch_counts_for_the_token_over_it() -> None:
    """By a plain loop over patches: in the tests' own sums, and in what the export is held against."""
    side = 6
    maps = np.random.default_rng(0).random((3, side**2)).astype(np.float32)
    expected = np.zeros((3, side // 2, side // 2), np.float32)
    for row in range(side):
        for column in range(side):
            expected[:, row // 2, column // 2] += maps[:, row * side + column]
    np.testing.assert_allclose(summed(maps[:, None])[:, 0], expected.reshape(3, -1), rtol=1e-6)
    with torch.device("meta"):
        reference = FAMILIES["internvl"].reference(InternVLConfig())
    np.testing.assert_allclose(reference.per_token(torch.from_numpy(maps)), expected.reshape(3, -1), rtol=1e-6)
