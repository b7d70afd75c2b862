"""What a tiny checkpoint of a family is made of: transformers' classes, and the fields that are the family's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from tests.tiny.tokenizers import TokenizerFacts

TOWER = {
    "image_size": 56,
    "patch_size": 14,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "intermediate_size": 64,
}
"""Of every tiny tower: N = 16 patches, and five layers, so that the first, the last and one between are others."""


class Fields(Protocol):
    def __call__(self, tokens: TokenizerFacts, vision: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class TinyFamily:
    """One family.

    Args:
        model, config, vision_config, processor, picture_processor: transformers' classes; the last with Pillow, which
            needs no torchvision.
        fields: of the top-level config, besides its two sections.
        vision: further fields of the vision_config.
        picture: the config -> fields of the picture processor.
        of_processor: the config -> what the processor keeps besides.
        see: transformers' model and one picture's `pixel_values` -> its projected features (T, N, D), and each layer's
            CLS attention (T, H, N), the base picture first.
        pictures: as `write_tokenizer` has it.
    """

    model: Any
    config: Any
    vision_config: Any
    processor: Any
    picture_processor: Any
    fields: Fields
    picture: Any
    of_processor: Any
    see: Callable[[Any, torch.Tensor], tuple[torch.Tensor, list[NDArray[np.float32]]]]
    vision: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, str] | None = None

    @contextmanager
    def without_films(self) -> Iterator[None]:
        """The processor has no part that needs torchvision: what it is saved with and loaded from is the rest."""
        parts = [name for name in self.processor.get_attributes() if name != "video_processor"]
        with patch.object(self.processor, "get_attributes", classmethod(lambda cls: parts)):
            yield
