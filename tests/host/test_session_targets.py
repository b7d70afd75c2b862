"""The prefix cache on every kind of graph: a cache written in place or appended to, a sliding window, grouped heads."""

from __future__ import annotations

from pathlib import Path

import pytest

import hired_runtime
from tests.host.bundles import Bundles, standard_language, variant
from tests.host.reference import picture
from tests.tiny.alike import check_conversations

FP16, FP32 = 5e-3, 1e-4
"""Of the largest logit: what a near-tie is."""


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("next-llama", FP32),
        ("next-mistral-window", FP32),
        pytest.param("jp7-fp16", FP16, marks=pytest.mark.slow),
        ("jp6-window", FP16),
    ],
)
def test_conversations_go_on_as_from_scratch(name: str, tolerance: float, bundles: Bundles) -> None:
    folder = bundles(name).bundle
    model, reference = hired_runtime.open(folder, batch=2, threads=1), hired_runtime.open(folder, threads=1)
    check_conversations(model, reference, [picture(107, 80), picture(60, 90)], tolerance)


def test_conversations_go_on_on_the_standard_graph(bundles: Bundles, tmp_path: Path) -> None:
    made = bundles("next-llama")
    folder = variant(made.bundle, tmp_path / "standard", language=standard_language(made.checkpoint))
    model, reference = hired_runtime.open(folder, batch=2, threads=1), hired_runtime.open(folder, threads=1)
    check_conversations(model, reference, [picture(107, 80), picture(60, 90)], FP32)
