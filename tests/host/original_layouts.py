"""The tiny checkpoints in original layouts that tests share, each with the Hub's of the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny.checkpoints import write_checkpoint
from tests.tiny.original import write_original

# Heads of 64, as in OpenAI's towers: a tower inside a checkpoint says no number of heads.
TOWER = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 3}


@dataclass(frozen=True)
class Layout:
    """An original checkpoint, by the folder's name, and the Hub's that it is made of."""

    family: str
    text: str
    outside: bool = False
    options: tuple[tuple[str, Any], ...] = ()


LAYOUTS = {
    "llava-v1.5-7b": Layout("llava", "llama", outside=True, options=(("shards", 2),)),
    "ShareGPT4V-7B": Layout("llava", "llama", True, (("safetensors", False), ("model_type", "share4v"), ("shards", 2))),
    "llava-v1.6-vicuna-7b": Layout("llava_next", "llama", options=(("model_type", "llava"),)),
    "llava-v1.6-mistral-7b": Layout("llava_next", "mistral", options=(("shards", 3),)),
    "llava-next-72b": Layout("llava_next", "qwen2", options=(("safetensors", False),)),
}


@dataclass(frozen=True)
class Made:
    hub: Path
    original: Path
    tower: Path | None


class Originals:
    """`originals(name)` is made on first use, below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Made] = {}

    def __call__(self, name: str) -> Made:
        if name not in self._made:
            root, layout = self._root / f"{name}-of", LAYOUTS[name]
            text = {"num_hidden_layers": 1}
            hub = write_checkpoint(root / "hub", layout.family, layout.text, text_config=text, vision_config=TOWER)
            tower = root / "tower" if layout.outside else None
            self._made[name] = Made(hub, write_original(hub, root / name, tower=tower, **dict(layout.options)), tower)
        return self._made[name]
