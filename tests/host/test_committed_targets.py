"""The committed models, golden and demonstration, exported for every GPU target: ONNX Runtime on the CPU gives the same
tokens as their committed `cpu` bundles, or parts from them at a near-tie.
"""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from PIL import Image

from demo.scenes.compose import compose
from demo.scenes.draw import encode
from demo.scenes.questions import TASKS, sample
from demo.training import bundle as demo
from hired_edge.manifest import Precision, Target
from hired_export import parity
from hired_export.exporter import ExportOptions, export
from tests.golden import make as golden
from tests.host.near_ties import check_same, unrounded
from tests.host.reference import picture

JP7, JP6 = ("jp7", "fp16"), ("jp6", "fp16")


def demo_questions() -> list[tuple[str, Image.Image]]:
    asked = []
    for number in range(4):
        scene = compose(1003, number)
        with Image.open(io.BytesIO(encode(scene))) as file:
            seen = file.convert("RGB")
        asked += [(each.prompt, seen) for each in sample(random.Random(number), scene, dict.fromkeys(TASKS, 1.0), 4)]
    return asked


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), [JP7, JP6])
def test_the_demonstration_model(target: Target, precision: Precision, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = ExportOptions(target=target, precision=precision, progress=False, **demo.LIMITS)
    export(demo.CHECKPOINT, out, options, check=parity.check)
    for budget in ("100%", "40%", "20%"):
        error = check_same(demo.BUNDLE, out, budget, demo_questions())
        print(f"demo, {target} {precision} at {budget}: {error:.1e} of the largest logit")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_demonstration_model_quantised(precision: Precision, tmp_path: Path) -> None:
    """Against the CPU's bundle of the same integers, run without rounding activations to int8."""
    paths: dict[Target, Path] = {}
    for target in ("cpu", "jp7", "jp6"):
        paths[target] = tmp_path / target
        options = ExportOptions(target=target, precision=precision, block_size=128, progress=False, **demo.LIMITS)
        export(demo.CHECKPOINT, paths[target], options, check=parity.check)
    plain = unrounded(paths["cpu"], tmp_path / "unrounded")
    for target in ("jp7", "jp6"):
        for budget in ("100%", "20%"):
            error = check_same(plain, paths[target], budget, demo_questions())
            print(f"demo, {target} {precision} at {budget}: {error:.1e} of the largest logit")


@pytest.mark.parametrize(("target", "precision"), [pytest.param(*JP7, marks=pytest.mark.slow), JP6])
def test_the_golden_model(target: Target, precision: Precision, tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "bundle"
    golden.write(checkpoint)
    options = ExportOptions(
        target=target, precision=precision, max_batch=2, max_images=2, progress=False, **golden.LIMITS
    )
    export(checkpoint, out, options, check=parity.check)
    asked = [("What is it?", picture(200, 150)), ("Read the sign.", picture(60, 300))]
    for budget in ("100%", "20%"):
        error = check_same(golden.HERE / "bundle", out, budget, asked)
        print(f"golden, {target} {precision} at {budget}: {error:.1e} of the largest logit")
