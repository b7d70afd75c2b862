"""Do two bundles of one model answer alike? Their tokens are equal, or first part at a near-tie of the logits.

Which visual tokens are kept is a near-tie's business too: where the attention of two patches differs by less than fp16
rounds, either may be kept, and what follows is another question.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

import hired_runtime
from hired_edge.budget import parse_budget
from hired_edge.bundle import Bundle, write_manifest
from hired_edge.selection import Selection
from hired_runtime.pipeline import Timings
from tests.host.reference import opened, taken

TOLERANCE = 2e-2
"""fp16: of the largest logit. Twice it is what two logits may be apart and still change places."""
MAPS_TOLERANCE = 5e-3
"""fp16: of the largest attention of a picture."""


def unrounded(bundle: Path, out: Path) -> Path:
    """A copy of a `cpu` bundle whose quantised products leave activations in fp32."""
    manifest = Bundle.open(bundle).manifest
    (graph,) = manifest.language_graphs
    model = onnx.load(bundle / graph.file, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    shutil.copytree(bundle, out)
    (out / graph.file).write_bytes(model.SerializeToString())
    write_manifest(out, manifest)
    return out


def check_same(
    theirs: Path, ours: Path, budget: str, questions: Sequence[tuple[str, Image.Image]], new_tokens: int = 12
) -> float:
    """Asks both the same questions at one budget, which they are opened with.

    Returns:
        the largest error of our logits, of the largest logit, as long as both have read the same tokens.
    """
    (first, first_steps), (second, second_steps) = (opened(path, visual_tokens=budget) for path in (theirs, ours))
    errors = []
    for prompt, picture in questions:
        _check_maps(first, second, picture, budget)
        answers = [model.ask(prompt, [picture], max_new_tokens=new_tokens) for model in (first, second)]
        expected, got = taken(first_steps), taken(second_steps)
        if not _kept_alike(answers[0].selections[0], answers[1].selections[0]):
            continue
        tokens = [answer.tokens for answer in answers]
        steps = min(map(len, tokens))
        parted = next((i for i in range(steps) if tokens[0][i] != tokens[1][i]), None)
        shared = steps if parted is None else parted + 1  # where they part, both had read the same
        largest = float(np.abs(expected[:shared]).max())
        errors.append(float(np.abs(got[:shared] - expected[:shared]).max()) / largest)
        assert errors[-1] <= TOLERANCE
        if parted is None:
            assert tokens[0] == tokens[1]
        else:
            gap = expected[parted][tokens[0][parted]] - expected[parted][tokens[1][parted]]
            assert gap <= 2 * TOLERANCE * largest, f"{prompt!r} parts at token {parted} with a gap of {gap}"
    assert 4 * len(errors) >= 3 * len(questions), "other tokens were kept in more than a quarter of the questions"
    return max(errors)


def _kept_alike(first: Selection, second: Selection) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.indices, second.indices, strict=True))


def _check_maps(first: hired_runtime.Model, second: hired_runtime.Model, picture: Image.Image, budget: str) -> None:
    """Selection is a function of the attention maps: where these agree, another choice is a near-tie."""
    seen = [model.pipeline.see([picture], parse_budget(budget), None, Timings()).maps[0] for model in (first, second)]
    for expected, got in zip(*(maps[:2] for maps in seen), strict=True):
        assert np.abs(got - expected).max() <= MAPS_TOLERANCE * expected.max()
