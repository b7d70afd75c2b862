"""LLaVA with Phi-3 as its text model: plain, and with a window and what is quantised."""

from __future__ import annotations

from typing import Any

from tests.host.recipes.recipe import CALM, Recipe

# Matrices whose inputs blocks of 64 divide.
_WIDE: dict[str, Any] = {"text_config": {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}}

RECIPES = {
    # Its decoder is of the shape that "next-mistral" has, whose trace it shares.
    "llava-phi3": Recipe(
        family="llava",
        text="phi3",
        checkpoint={
            "layout": "v4",
            "shards": 2,
            "text_config": {
                "head_dim": 24,
                "max_position_embeddings": 320,
                "num_hidden_layers": 2,
                "sliding_window": 2047,
            },
        },
    ),
    "next-phi3-window": Recipe(
        text="phi3",
        checkpoint={"layout": "memory", "text_config": {"num_hidden_layers": 2, "sliding_window": 24}},
        slow=True,
    ),
    "phi3-cpu-fp32": Recipe(family="llava", text="phi3", checkpoint=_WIDE, gains=CALM, slow=True),
    **{
        f"phi3-{target}-{precision}": Recipe(
            family="llava",
            text="phi3",
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
