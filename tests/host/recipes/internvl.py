"""InternVL's bundles: both kinds of its tower, both text models that come with it, and every target."""

from __future__ import annotations

from typing import Any

from tests.host.recipes.recipe import CALM, Recipe

# Matrices whose inputs blocks of 64 divide.
_WIDE: dict[str, Any] = {"text_config": {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}}

RECIPES = {
    # Its decoder is of the shape that "next-qwen2" has, whose trace it shares.
    "internvl-qwen2": Recipe(
        family="internvl",
        text="qwen2",
        checkpoint={"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 3}},
        options={"max_images": 2},
    ),
    # The 6B tower's ways, features of another layer, a tied head.
    "internvl-llama": Recipe(
        family="internvl",
        text="llama",
        checkpoint={
            "layout": "memory",
            "safetensors": False,
            "tie_embeddings": True,
            "style": "llama",
            "template": "chatml",
            "rope": {"rope_type": "dynamic", "factor": 2.0},
            "text_config": {"num_hidden_layers": 2},
            "vision_config": {"attention_bias": False, "use_qk_norm": True, "norm_type": "rms_norm"},
            "vision_feature_layer": -2,
        },
        slow=True,
    ),
    "internvl-cpu-fp32": Recipe(family="internvl", text="qwen2", checkpoint=_WIDE, gains=CALM, slow=True),
    **{
        f"internvl-{target}-{precision}": Recipe(
            family="internvl",
            text="qwen2",
            checkpoint=_WIDE,
            gains=CALM,
            options={
                "target": target,
                "precision": precision,
                "block_size": 64 if precision == "int4" else None,
                "visual_tokens": ("100%", "20%"),
            },
            slow=True,
        )
        for target, precisions in {"cpu": ("int4", "int8"), "jp7": ("fp16", "int4"), "jp6": ("fp16", "int4")}.items()
        for precision in precisions
    },
}
