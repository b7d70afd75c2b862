"""The model as transformers runs it: every visual token, spliced in by transformers itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks import pytorch
from benchmarks.job import Job
from benchmarks.preparation import Prepared
from benchmarks.results import Figures


class Stock:
    """Makes the inputs of `generate`."""

    def __init__(self, model: pytorch.Model) -> None:
        self._model = model

    def __call__(self, rows: Sequence[Prepared], job: Job) -> pytorch.Inputs:
        """What transformers' processor would give; a budget is not looked at."""
        net, device = self._model.net, self._model.device
        image = net.config.image_token_id
        ids = [np.insert(row.prompt.ids, row.prompt.splices[0], [image] * row.tiling.stock_tokens) for row in rows]
        input_ids = torch.from_numpy(np.stack(ids)).to(device)
        pixels = torch.from_numpy(np.stack([row.pixels for row in rows]))
        arguments = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": pixels.to(device, net.dtype),
            "image_sizes": torch.tensor([[row.tiling.height, row.tiling.width] for row in rows], device=device),
        }
        return pytorch.Inputs(arguments, rows[0].tiling.stock_tokens)


def measure(job: Job, report: Callable[[str], None]) -> Figures:
    """See `pytorch.measure`."""
    return pytorch.measure(job, Stock, report)
