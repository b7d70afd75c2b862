"""The planner's figures for ONNX Runtime on a CPU, against bundles on this machine: weights and cache within 5 % of the
files and of what is allocated, the process within 15 % of its high-water mark.

What Python and the engine's library take by themselves is measured here, in a process without a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hired_edge.planner.config import model_shape, read_model
from hired_edge.planner.shapes import ModelShape
from hired_export.exporter import ExportOptions, export
from hired_export.synthetic import synthetic_checkpoint
from hired_runtime.commands.inspect import compared
from hired_runtime.measured_memory import Job, compare, idle_bytes
from tests.golden import make as golden
from tests.host.bundles import Bundles, marked
from tests.tiny.checkpoints import write_checkpoint

ROOT = Path(__file__).parents[2]
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def idle() -> int:
    return idle_bytes()


def check(model: ModelShape, bundle: Path, budget: str | None, idle: int, record: Record) -> None:
    comparison = compare(model, Job(str(bundle), budget), idle)
    record(bundle.name, compared(comparison))
    print(f"{bundle.name} {budget or ''}\n{compared(comparison)}")
    assert comparison.planned_weights_and_cache == pytest.approx(comparison.weights_and_cache, rel=0.05)
    assert comparison.planned_peak == pytest.approx(comparison.measured.peak, rel=0.15)


@pytest.mark.parametrize("name", marked(slow=("internvl-qwen2", "llava-phi3")))  # each is a process of its own
def test_bundles_of_the_suite(name: str, bundles: Bundles, idle: int, record_property: Record) -> None:
    exported = bundles(name)
    check(read_model(str(exported.checkpoint)), exported.bundle, None, idle, record_property)


@pytest.mark.parametrize("name", list(golden.BUNDLES))
@pytest.mark.parametrize("budget", ["100%", "20%"])
def test_golden_bundles(name: str, budget: str, idle: int, tmp_path: Path, record_property: Record) -> None:
    folder = write_checkpoint(
        tmp_path / "checkpoint",
        "llava_next",
        "mistral",
        layout="v4",
        vision_config=golden.VISION,
        text_config=golden.TEXT,
        image_grid_pinpoints=golden.PINPOINTS,
    )
    model = model_shape(json.loads((folder / "config.json").read_text()))
    check(model, golden.HERE / name, budget, idle, record_property)


@pytest.mark.parametrize("budget", ["100%", "20%"])
def test_the_demonstration_model(budget: str, idle: int, record_property: Record) -> None:
    model = model_shape(json.loads((ROOT / "demo/checkpoint/config.json").read_text()))
    check(model, ROOT / "demo/bundle", budget, idle, record_property)


LARGE = {
    "model_type": "llava_next",
    "image_token_index": 4000,
    "image_grid_pinpoints": [[224, 448], [448, 224], [448, 448]],
    "text_config": {
        "model_type": "llama",
        "hidden_size": 1536,
        "intermediate_size": 4096,
        "num_hidden_layers": 4,
        "num_attention_heads": 24,
        "vocab_size": 6016,
        "max_position_embeddings": 4096,
    },
    "vision_config": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 224,
        "patch_size": 14,
    },
}
"""Half a gigabyte in float32: enough for weights, cache and activations to outweigh the process."""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_bundle_that_outweighs_the_process(
    precision: str, idle: int, tmp_path: Path, record_property: Record
) -> None:
    (tmp_path / "large.json").write_text(json.dumps(LARGE))
    options = ExportOptions(
        precision=precision,  # type: ignore[arg-type]
        visual_tokens=("100%", "20%"),
        max_text_tokens=256,
        max_new_tokens=64,
        progress=False,
    )
    with synthetic_checkpoint(str(tmp_path / "large.json"), seed=0) as checkpoint:
        export(checkpoint, tmp_path / precision, options)
    for budget in ("100%", "20%"):
        check(model_shape(LARGE), tmp_path / precision, budget, idle, record_property)
