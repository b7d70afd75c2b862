"""What the process of one cell is told, the same for every side."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.results import Device
from hired_runtime.profiling.measuring import Job as Asked


@dataclass(frozen=True)
class Job:
    """One cell's work.

    Args:
        asked: the request, its budget and batch, how often it is asked, and the bundle: ours to run, and where the
            others find the rules of the prompt and the picture.
        checkpoint: the weights that the bundle was made of.
        device: where PyTorch runs.
    """

    asked: Asked
    checkpoint: str
    device: Device
