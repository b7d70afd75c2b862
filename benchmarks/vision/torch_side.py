"""transformers' CLIP tower and projector in PyTorch, float32: with whole attention maps, and with SDPA.

    python -m benchmarks.vision.torch_side SHAPE PIXELS THREADS

With maps is what transformers offers to who needs attention: `output_attentions=True`, which makes every layer keep the
attention of all tokens to all tokens. HiRED's public code hooks queries and keys of two layers instead, beside the
tower's own attention: between the two (`benchmarks.research`, which `make bench` measures). The tower has the layers
that `from_pretrained` gives it, the unread last one included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from benchmarks.cpu.serving import serve
from benchmarks.vision.files import SEED, spec_of
from hired_export.checkpoint import Checkpoint
from hired_export.references import References
from hired_export.synthetic import synthetic_checkpoint
from hired_export.targets import schemes


class Tower(nn.Module):
    """pixel_values (T, 3, h, w) -> projected features (T, N, D), filled from a checkpoint in its own layout.

    Args:
        attention: "eager" or "sdpa".
    """

    def __init__(self, checkpoint: Path, attention: str) -> None:
        super().__init__()
        spec = spec_of(checkpoint)
        self.shape = spec.vision
        _, stored = schemes("cpu", "fp32", None)
        self.tower, self.projector = References(Checkpoint(checkpoint), spec, stored).tower(spec.vision_layers)
        self.tower.set_attn_implementation(attention)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self._projected(self.tower(pixel_values, output_hidden_states=True))

    def with_maps(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The features, and both layers' attention of CLS to the patches, summed over heads (T, N)."""
        found = self.tower(pixel_values, output_hidden_states=True, output_attentions=True)
        layers = (self.shape.allocation_layer, self.shape.selection_layer)
        allocation, selection = (found.attentions[layer][:, :, 0, 1:].sum(1) for layer in layers)
        return self._projected(found), allocation, selection

    def _projected(self, found: Any) -> torch.Tensor:
        return self.projector(found.hidden_states[self.shape.feature_layer + 1][:, 1:])


class Both:
    """One set of weights, asked in both ways."""

    def __init__(self, shape: str, pixels: str, threads: int) -> None:
        torch.set_num_threads(threads)
        with synthetic_checkpoint(shape, SEED) as checkpoint:
            self._tower = Tower(checkpoint, "sdpa")
        self._pixels = torch.from_numpy(np.load(pixels))
        self._outputs: tuple[torch.Tensor, ...] = ()

    @torch.inference_mode()
    def sdpa(self) -> float:
        """Seconds of all tiles."""
        return self._timed("sdpa", lambda pixels: (self._tower(pixels),))

    @torch.inference_mode()
    def maps(self) -> float:
        """Seconds of all tiles, with the maps of every layer."""
        return self._timed("eager", self._tower.with_maps)

    def _timed(self, attention: str, run: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> float:
        self._tower.tower.set_attn_implementation(attention)
        begin = time.perf_counter()
        self._outputs = run(self._pixels)
        return time.perf_counter() - begin

    def save(self, path: str) -> None:
        """What the last run gave: features, allocation and selection attention, as far as it did."""
        names = ("features", "allocation", "selection")
        found: dict[str, Any] = {name: value.numpy() for name, value in zip(names, self._outputs, strict=False)}
        np.savez(path, **found)


def _open() -> Mapping[str, Callable[..., Any]]:
    shape, pixels, threads = sys.argv[1:]
    both = Both(shape, pixels, int(threads))
    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return {"sdpa": both.sdpa, "maps": both.maps, "save": both.save, "version": lambda: version}


if __name__ == "__main__":
    serve(_open)
