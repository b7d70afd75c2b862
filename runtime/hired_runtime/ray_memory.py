"""What a process of a cluster takes of its machine's memory: what Ray is told, so that it places no more than fit."""

from __future__ import annotations

from hired_edge.budget import parse_budget
from hired_edge.limits import resolve_opening
from hired_edge.manifest import Manifest
from hired_edge.plan import memory_plan

_BESIDE_BYTES = 2**28
"""Python, libraries and pictures, beside what a bundle's plan counts."""


def process_bytes(manifest: Manifest, visual_tokens: str | int | None, batch: int, images: int | None = None) -> int:
    """Bytes of a process that has the bundle open.

    Args:
        visual_tokens, batch, images: as `hired_runtime.open` takes them.

    Raises:
        HiredEdgeError: a budget that is none.
        LimitError: one of them is over what was exported.
    """
    visual = None if visual_tokens is None else parse_budget(visual_tokens)
    limits = resolve_opening(manifest.limits, manifest.vision.tiling, visual=visual, batch=batch, images=images)
    return memory_plan(manifest, limits).total + _BESIDE_BYTES
