"""The demonstration model's shape: a small LLaVA-NeXT made of transformers' own classes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from hired_edge.preprocessing import PreprocessRules
from hired_edge.tiling import TilingRules

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

TILE, PATCH, GRIDS = 112, 14, ((2, 2), (1, 2), (2, 1), (1, 3), (3, 1))
PINPOINTS = tuple((rows * TILE, columns * TILE) for rows, columns in GRIDS)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
TILING = TilingRules("anyres", TILE, PATCH, PINPOINTS)
PREPROCESS = PreprocessRules(TILE, None, 3, 1 / 255, MEAN, STD)

TOWER: dict[str, Any] = {"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 6, "num_attention_heads": 5}
# Widths that are multiples of 128, so that int4 blocks of any size fit.
TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def make_model(vocab_size: int, image_token_id: int, bos: int, eos: int) -> LlavaNextForConditionalGeneration:
    """The model with random weights, on `DEVICE`."""
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=TILE, patch_size=PATCH, projection_dim=TOWER["hidden_size"], **TOWER),
        text_config=LlamaConfig(
            vocab_size=vocab_size,
            max_position_embeddings=1024,
            rms_norm_eps=1e-5,
            bos_token_id=bos,
            eos_token_id=eos,
            tie_word_embeddings=False,
            **TEXT,
        ),
        image_token_index=image_token_id,
        image_seq_length=(TILE // PATCH) ** 2,
        image_grid_pinpoints=[list(each) for each in PINPOINTS],
        tie_word_embeddings=False,
    )
    model: Any = LlavaNextForConditionalGeneration(config)
    return model.to(DEVICE)
