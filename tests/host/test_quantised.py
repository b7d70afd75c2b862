"""int8 and int4 against fp32: how far the logits move, with floors that one broken scale falls through.

The floors are for these checkpoints (random weights, two layers of width 128), with room above what was measured; they
say that nothing is broken, not how well a trained model answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hired_edge.bundle import Bundle, write_manifest
from tests.host.bundles import Bundles
from tests.host.reference import opened, picture, taken

PROMPTS = (
    "What is it?",
    "How many people are in the image?",
    "Read the text on the sign.",
    "Describe the picture in detail.",
    "Is there a clock on the wall?",
    "What colour is the car?",
    "Where was this photograph taken?",
    "Yes?",
)
SIZES = ((107, 80), (30, 170), (56, 56), (160, 40))
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Figures:
    """Over prompts: the mean cosine of the logits, the share of equal largest logits, |got - expected| / |expected|."""

    cosine: float
    top1: float
    error: float

    @classmethod
    def of(cls, got: Floats, expected: Floats) -> Figures:
        cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
        top1 = (got.argmax(1) == expected.argmax(1)).mean()
        return cls(float(cosine.mean()), float(top1), float(np.linalg.norm(got - expected) / np.linalg.norm(expected)))

    def reaches(self, floor: Figures) -> bool:
        return self.cosine >= floor.cosine and self.top1 >= floor.top1 and self.error <= floor.error


FLOORS = {
    "wide-int8": Figures(0.998, 0.75, 0.06),
    "wide-int4-32": Figures(0.972, 0.25, 0.235),
    "wide-int4-64": Figures(0.965, 0.15, 0.26),
    "wide-int4-128": Figures(0.96, 0.15, 0.275),
}


def prefills(bundle: Path) -> Floats:
    """Logits after each prompt about each picture, (prompts * pictures, V)."""
    model, recorder = opened(bundle)
    for size in SIZES:
        for prompt in PROMPTS:
            model.ask(prompt, [picture(*size)], max_new_tokens=1)
    return taken(recorder)


@pytest.fixture(scope="module")
def expected(bundles: Bundles) -> Floats:
    return prefills(bundles("wide-fp32").bundle)


@pytest.mark.parametrize("name", FLOORS)
def test_floors(name: str, bundles: Bundles, expected: Floats, record_property: Callable[[str, object], None]) -> None:
    figures = Figures.of(prefills(bundles(name).bundle), expected)
    record_property(name, str(figures))
    print(name, figures)
    assert figures.reaches(FLOORS[name])


def scales(bundle: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of every matrix's scales in the language graph's data file."""
    graph = onnx.load(bundle / "language/model.onnx", load_external_data=False).graph
    places = {}
    for tensor in graph.initializer:
        if tensor.name.endswith(".scales"):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            places[tensor.name.removesuffix(".scales")] = (int(entries["offset"]), int(entries["length"]))
    return places


@pytest.mark.parametrize("name", ["wide-int8", "wide-int4-32"])
def test_a_broken_scale_falls_through_the_floor(name: str, bundles: Bundles, expected: Floats, tmp_path: Path) -> None:
    """One matrix's scales doubled in the data file, hashes made anew: every matrix, each by itself."""
    source = bundles(name).bundle
    places = scales(source)
    assert len(places) == 2 * 7 + 1
    passed = []
    for matrix, (offset, length) in places.items():
        broken = tmp_path / matrix
        shutil.copytree(source, broken)
        data = np.memmap(broken / "language/model.onnx.data", np.float32, "r+", offset, (length // 4,))
        data *= 2
        data.flush()
        write_manifest(broken, Bundle.open(broken, verify=False).manifest)
        figures = Figures.of(prefills(broken), expected)
        print(name, matrix, figures)
        if figures.reaches(FLOORS[name]):
            passed.append(matrix)
    assert passed == []
