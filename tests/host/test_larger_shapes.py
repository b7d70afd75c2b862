"""13B and up: the same code at a 64th of each width, two layers deep, with the model's own ratios, heads and biases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hired_edge.planner.config import model_shape
from hired_edge.planner.published import PUBLISHED
from hired_export import exporter, parity
from hired_export.exporter import ExportOptions, export
from hired_export.synthetic import synthetic_checkpoint
from tests.host.bundles import traced_language, traced_vision

SHAPES = ["llava-v1.6-vicuna-13b", "llava-v1.6-34b", "llama3-llava-next-8b", "llava-next-72b", "llava-next-110b"]
QUICK = ("llava-v1.6-34b",)
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}


def small(name: str) -> dict[str, Any]:
    """Heads of 16 for 128, an eighth of their number."""
    config, shape = PUBLISHED[name].config, model_shape(PUBLISHED[name].config).text
    kept = {key: value for key, value in config["text_config"].items() if not key.endswith("token_id")}
    text = {
        **kept,
        "hidden_size": shape.hidden_size // 64,
        "intermediate_size": shape.intermediate_size // 64,
        "num_attention_heads": shape.heads // 8,
        "num_key_value_heads": max(1, shape.kv_heads // 8),
        "num_hidden_layers": 2,
        "max_position_embeddings": 1024,
        "vocab_size": 448,
    }
    pinpoints = [[side // 6 for side in pair] for pair in config["image_grid_pinpoints"]]
    return {
        **config,
        "image_token_index": 400,
        "image_grid_pinpoints": pinpoints,
        "text_config": text,
        "vision_config": TOWER,
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in SHAPES]
)
def test_a_few_layers_of_it_export(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(small(name)))
    sizes: dict[str, Any] = {"visual_tokens": ("20%",), "max_text_tokens": 160, "max_new_tokens": 40}
    with pytest.MonkeyPatch.context() as patch, synthetic_checkpoint(str(path), 0) as checkpoint:
        patch.setattr(exporter, "language_graph", traced_language)
        patch.setattr(exporter, "vision_graph", traced_vision)
        manifest = export(checkpoint, tmp_path / "out", ExportOptions(progress=False, **sizes), check=parity.check)
    whole, text = model_shape(PUBLISHED[name].config).text, manifest.text
    assert (text.model_type, 8 * text.heads, 64 * text.hidden_size) == (
        whole.model_type,
        whole.heads,
        whole.hidden_size,
    )
    assert manifest.parity
