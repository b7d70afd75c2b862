"""HiRED as its authors run it, in PyTorch: hooks on the tower, whole attention maps, the kept rows into `generate`.

Their code (github.com/hasanar1f/HiRED, modeling_llava_next.py, ViT_Attn_Hook) catches queries and keys of two layers
with forward hooks while the tower runs with its own attention, and multiplies them once more to a map of all tokens
against all. So does this; the row of CLS is then taken and summed over heads. Which tokens are kept is decided by
`hired_edge.selection` on both sides, so that the same ones are: what differs is how they are come by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import pytorch
from benchmarks.job import Job
from benchmarks.preparation import Prepared
from benchmarks.results import Figures
from hired_edge.selection import Selection, select

Maps = list[NDArray[np.float32]]


class Hooks:
    """Queries and keys of one layer of the tower, while it runs."""

    def __init__(self, tower: Any, layer: int) -> None:
        modules = dict(tower.named_modules())
        (name,) = (name for name in modules if name.endswith(f"encoder.layers.{layer}.self_attn"))
        self._attention, self._caught = modules[name], {}
        for part in ("q_proj", "k_proj"):
            getattr(self._attention, part).register_forward_hook(self._keep(part))

    def _keep(self, part: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
            self._caught[part] = output

        return hook

    def cls_attention(self) -> torch.Tensor:
        """From the CLS token to every patch, summed over heads: (tiles, N) float32."""
        heads = self._attention.num_heads
        q, k = (self._caught.pop(part).unflatten(-1, (heads, -1)).transpose(1, 2) for part in ("q_proj", "k_proj"))
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)  # (tiles, H, N + 1, N + 1)
        return weights[:, :, 0, 1:].float().sum(1)


class Research:
    """Makes the inputs of `generate`; hooks are set once, when it is made.

    Attributes:
        maps: of the last request: allocation's and selection's of each row, (T, N).
        selections: of the last request, one a row.
    """

    def __init__(self, model: pytorch.Model) -> None:
        vision = model.preparation.manifest.vision
        assert vision.heads == "sum", vision.heads
        layers = (vision.allocation_layer, vision.selection_layer)
        self._hooks = [Hooks(model.net.model.vision_tower, layer) for layer in layers]
        self._layer = vision.feature_layer + 1  # of hidden_states, which begin with the embeddings
        self._model = model
        self.maps: list[Maps] = []
        self.selections: list[Selection] = []

    def __call__(self, rows: Sequence[Prepared], job: Job) -> pytorch.Inputs:
        features, asked = self._see(rows), job.asked
        self.selections = [
            select([row.tiling], [maps[0]], [maps[1]], asked.budget, asked.policy, asked.alpha, asked.newlines)[0]
            for row, maps in zip(rows, self.maps, strict=True)
        ]
        parts = zip(rows, self.selections, features, strict=True)
        embeds = torch.stack([self._spliced(*each) for each in parts])  # one picture many times: rows of one length
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64, device=embeds.device)
        return pytorch.Inputs({"inputs_embeds": embeds, "attention_mask": mask}, self.selections[0].visual_tokens)

    def _see(self, rows: Sequence[Prepared]) -> list[torch.Tensor]:
        """Each row's projected features (T * N, D), all tiles in one run of the tower; keeps the maps."""
        net = self._model.net
        pixels = torch.from_numpy(np.concatenate([row.pixels for row in rows])).to(self._model.device, net.dtype)
        hidden = net.model.vision_tower(pixels, output_hidden_states=True).hidden_states[self._layer][:, 1:]
        features = net.model.multi_modal_projector(hidden)
        tiles = [row.tiling.tiles for row in rows]
        maps = [torch.split(hooks.cls_attention().cpu(), tiles) for hooks in self._hooks]
        self.maps = [[part.numpy() for part in row] for row in zip(*maps, strict=True)]
        return [part.flatten(0, 1) for part in torch.split(features, tiles)]

    def _spliced(self, row: Prepared, selection: Selection, features: torch.Tensor) -> torch.Tensor:
        """(S, D): the text's embeddings with the kept features and newlines in the picture's place."""
        net, device = self._model.net, self._model.device
        text = net.get_input_embeddings()(torch.from_numpy(row.prompt.ids).to(device))
        gather = torch.from_numpy(selection.gather).to(device)
        visual = torch.where((gather < 0)[:, None], net.model.image_newline, features[gather.clamp(min=0)])
        at = row.prompt.splices[0]
        return torch.cat([text[:at], visual, text[at:]])


def measure(job: Job, report: Callable[[str], None]) -> Figures:
    """See `pytorch.measure`."""
    return pytorch.measure(job, Research, report)
