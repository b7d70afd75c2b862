"""The least time that a device's arithmetic and memory allow: floating-point operations, bytes, and which one binds.

A multiply-add is two operations. Norms, activations, rotary embeddings, the picture's preparation and the selection
in numpy are left out, kernels are taken to reach the peak rates, and each byte moves once: so these are bounds that
nothing can beat, not predictions. Attention is counted for the keys that a query sees: causal, within its window.
"""

from __future__ import annotations

from dataclasses import dataclass

from hired_edge.limits import Limits
from hired_edge.plan import kv_bytes_per_token
from hired_edge.planner.devices import Device
from hired_edge.planner.footprint import text_model
from hired_edge.planner.shapes import ModelShape
from hired_edge.planner.storage import Stored, Target


@dataclass(frozen=True)
class Work:
    """What a stage has to do."""

    flops: float
    bytes: float

    def seconds(self, device: Device) -> float:
        """The longer of arithmetic and memory."""
        return max(self.compute_seconds(device), self.bytes / (1e9 * device.bandwidth_gb_s))

    def compute_seconds(self, device: Device) -> float:
        return self.flops / (1e12 * device.fp16_tflops)

    def bound(self, device: Device) -> str:
        """ "compute" or "memory"."""
        return "compute" if self.compute_seconds(device) == self.seconds(device) else "memory"


@dataclass(frozen=True)
class Roofline:
    """Bounds of one request at its limits."""

    vision: Work
    """All pictures of all rows."""
    prefill: Work
    decode: Work
    """One step, with half of the answer in the cache."""
    batch: int

    def ttft_s(self, device: Device) -> float:
        """Time to first token: tower, then prefill."""
        return self.vision.seconds(device) + self.prefill.seconds(device)

    def tokens_per_s(self, device: Device) -> float:
        """Of all rows together."""
        return self.batch / self.decode.seconds(device)


def roofline(model: ModelShape, target: Target, weights: Stored, limits: Limits) -> Roofline:
    """The work of one request that uses its limits up: visual, text and new tokens of every row."""
    text = model.text
    prompt = limits.visual_tokens + limits.text_tokens
    window = text.sliding_window or prompt + limits.new_tokens
    context = min(window, prompt + limits.new_tokens / 2)
    inside = min(window, prompt)
    pairs = inside * (inside + 1) / 2 + (prompt - inside) * inside  # of queries and keys in a prefill
    kv_token = kv_bytes_per_token(text_model(model, target))
    pictures = limits.batch * limits.images
    per_token = 2 * text.layers * text.layer_elements
    head = 2 * text.head_elements
    mixing = 4 * text.layers * text.heads * text.head_dim  # a query against one key: scores, and the weighted values
    return Roofline(
        vision=Work(pictures * limits.tiles * tile_flops(model), pictures * weights.vision),
        prefill=Work(
            limits.batch * (prompt * per_token + head + mixing * pairs),
            weights.language + limits.batch * prompt * kv_token,
        ),
        decode=Work(
            limits.batch * (per_token + head + mixing * context),
            weights.matrices + limits.batch * context * kv_token,
        ),
        batch=limits.batch,
    )


def tile_flops(model: ModelShape) -> float:
    """Operations of the tower and the projector on one tile; attention sees its patches and the CLS token."""
    tower, width, patches = model.tower, model.text.hidden_size, model.tower_patches
    tokens = patches + 1
    stem = 2 * patches * 3 * model.patch_px**2 * tower.hidden_size
    layers = tower.exported_layers * (2 * tokens * tower.layer_elements + 4 * tokens**2 * tower.hidden_size)
    projector = 2 * model.tiling.patches_per_tile * (tower.merge**2 * tower.hidden_size * width + width**2)
    return stem + layers + projector
