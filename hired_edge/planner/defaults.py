"""What transformers' CLIPVisionConfig fills in where a config.json leaves keys out, and the tower of published LLaVAs.

Source: `configuration_{clip,llava}.py` of transformers 5.23; see tests/host/test_planner_config.py.
"""

from __future__ import annotations

from typing import Any

CLIP_L_336: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""The tower where a config has no `vision_config` at all, and the one that the original layouts name."""
CLIP: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
