"""What a bundle of the proof is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A checkpoint and how it differs from the defaults; what it is exported with.

    Args:
        gains: matrices (by a part of their names) that are multiplied by a number after they were drawn.
        shares: whether it shares traces.
        slow: whether tests that go through all recipes take it in `make test-all` alone.
    """

    family: str = "llava_next"
    text: str = "llama"
    checkpoint: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    shares: bool = True
    slow: bool = False


# Random queries and keys make attention so sharp that 10 % of error in the weights turn the logits around (in torch as
# well): calmer ones leave room between what rounding does and what a broken scale does.
CALM = {f"layers.{i}.self_attn.{name}_proj": gain for i, gain in ((0, 0.6), (1, 0.8)) for name in "qk"}
