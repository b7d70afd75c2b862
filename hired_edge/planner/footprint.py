"""What a model takes in memory while it answers, part by part, and the largest visual budget that fits.

Weights and cache are exact (the exporter's own arithmetic). What lives between two operators is an estimate, made of
the widths of one layer: measured with ONNX Runtime's CPU provider, which keeps an MLP's five intermediate results
(gate, sigmoid, SiLU, up, product; in the tower fc1, its bias, scaled, sigmoid, product), and given back by the
allocator so late that tower and prefill add up, and more (`TargetStorage.slack`). On the CPU a picture goes a tile at
a time and a prefill in chunks (`TargetStorage.tiles`, `.chunk`). A GPU engine's own workspace is assumed to be no
larger. Where attention is no fused kernel (`TargetStorage.scores`), its scores and the mask that is added to them are
counted.

What it does not know: an engine's tactics, and the picture as its file decodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from hired_edge.budget import Budget
from hired_edge.errors import LimitError
from hired_edge.limits import Limits, check_positions, derive_limits
from hired_edge.manifest import Target, TextModel
from hired_edge.plan import ITEMSIZE, buffer_bytes, kv_cache_bytes, largest_visual_budget
from hired_edge.planner.shapes import ModelShape
from hired_edge.planner.storage import TARGETS, Stored

MLP_WIDTHS = 5
"""Rows of the MLP's width alive at once per token, in the decoder and in the tower."""
DECODER_WIDTHS = 3
"""Rows of width D beside them: the residual, its normalised copy and attention's output."""
TOWER_WIDTHS = 4
"""As `DECODER_WIDTHS`, in the tower."""
PROJECTOR_WIDTHS = 5
"""Rows of width D of the projector's two products, their biases and the activation between them."""
SCORE_COPIES = 2
"""Of the scores where attention is no fused kernel: softmax reads one and writes another. ONNX Runtime on a CPU, which
computes in float32 there, holds more; its fused kernel (GroupQueryAttention) holds one, of a chunk's."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that must be in memory at once."""

    vision_weights: int
    language_weights: int
    repacked: int
    """Of the language model's weights, what the engine's copy takes beside them."""
    kv_cache: int
    buffers: int
    """Tensors bound to the two graphs, the cache apart."""
    vision_workspace: int
    """Between the tower's operators: of one picture's tiles, or as many of them as a run takes."""
    language_workspace: int
    """Between the decoder's operators in a prefill at the limits, and what its embeddings are joined from."""
    loading: int
    """Held for a moment while an engine loads: one more copy of the largest matrix."""
    process: int
    """The process without a model."""
    embedding_mapped: int
    """On disk, mapped; only rows in use are in memory, and the system may drop them: in no sum."""

    @property
    def weights_and_cache(self) -> int:
        """Exact."""
        return self.vision_weights + self.language_weights + self.kv_cache

    @property
    def peak(self) -> int:
        """The most that the process takes: while it loads, or while it answers."""
        running = self.kv_cache + self.buffers + self.vision_workspace + self.language_workspace
        weights = self.vision_weights + self.language_weights + self.repacked
        return self.process + weights + max(self.loading, running)


@dataclass(frozen=True)
class Request:
    """What is to be answered at once: tokens of each row, rows, and pictures of a row."""

    text_tokens: int
    new_tokens: int
    batch: int = 1
    images: int = 1

    def limits(self, model: ModelShape, budget: Budget) -> Limits:
        """The opening that this needs.

        Raises:
            InputError: a number below 1.
            LimitError: more positions than the text model has.
        """
        limits = derive_limits(
            model.tiling,
            [budget],
            text_tokens=self.text_tokens,
            new_tokens=self.new_tokens,
            batch=self.batch,
            images=self.images,
        )
        return check_positions(limits, model.text.positions, "--images")


def text_model(model: ModelShape, target: Target) -> TextModel:
    """The language model as a bundle's manifest would describe it."""
    text, facts = model.text, TARGETS[target]
    return TextModel(
        model_type=text.model_type,
        layers=text.layers,
        heads=text.heads,
        kv_heads=text.kv_heads,
        head_dim=text.head_dim,
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        sliding_window=text.sliding_window,
        positions=text.positions,
        activation_dtype=facts.dtype,
        cache_dtype=facts.dtype,
        cache=facts.cache,
    )


def footprint(model: ModelShape, target: Target, weights: Stored, limits: Limits, process_bytes: int) -> Footprint:
    """What an opening with `limits` takes.

    Args:
        model: the sizes.
        target: decides the types of activations and cache.
        weights: as `stored` gives them for the target.
        limits: the opening; one request at these limits is counted.
        process_bytes: the process without a model.
    """
    facts, slots = TARGETS[target], limits.max_sequence_length
    text = text_model(model, target)
    return Footprint(
        vision_weights=weights.vision,
        language_weights=weights.language,
        repacked=weights.repacked,
        kv_cache=kv_cache_bytes(text, slots, limits.batch),
        buffers=buffer_bytes(text, model.tiling, limits, slots, masked=facts.masked),
        vision_workspace=vision_workspace(model, target, limits.tiles),
        language_workspace=language_workspace(model, target, limits),
        loading=weights.largest_matrix,
        process=process_bytes,
        embedding_mapped=weights.embedding,
    )


def vision_workspace(model: ModelShape, target: Target, tiles: int) -> int:
    """Bytes of the tower's runs over a picture of `tiles` tiles: its MLP, or the projector behind it."""
    facts = TARGETS[target]
    tower, tokens = model.tower, model.tiling.patches_per_tile
    layer = (model.tower_patches + 1) * (MLP_WIDTHS * tower.intermediate_size + TOWER_WIDTHS * tower.hidden_size)
    projector = tokens * PROJECTOR_WIDTHS * model.text.hidden_size
    at_once = tiles if facts.tiles is None else min(tiles, facts.tiles)
    return int(facts.slack * at_once * facts.item * max(layer, projector))


def language_workspace(model: ModelShape, target: Target, limits: Limits) -> int:
    """Bytes of a prefill of every row's visual and text tokens: an MLP, or attention that writes its scores."""
    text, facts = model.text, TARGETS[target]
    row = limits.visual_tokens + limits.text_tokens
    tokens = limits.batch * row
    at_once = tokens if facts.chunk is None else min(tokens, facts.chunk)
    mlp = at_once * (MLP_WIDTHS * text.intermediate_size + DECODER_WIDTHS * text.hidden_size)
    pairs = tokens * (limits.max_sequence_length + row) if facts.scores else 0
    fused = 0 if facts.chunk is None else text.heads * at_once * limits.max_sequence_length
    scores = max(SCORE_COPIES * text.heads * pairs, fused)
    mask = text.heads // text.kv_heads * pairs * ITEMSIZE["float32"]
    parts = tokens * text.hidden_size * ITEMSIZE["float32"]
    return int(facts.slack * facts.item * max(mlp, scores)) + mask + parts


@dataclass(frozen=True)
class Fit:
    """Whether an opening fits a device."""

    footprint: Footprint
    available: int
    """Bytes that the system leaves."""

    @property
    def margin(self) -> int:
        """What is left over; negative where it does not fit."""
        return self.available - self.footprint.peak

    @property
    def fits(self) -> bool:
        return self.margin >= 0


def largest_budget(
    model: ModelShape,
    target: Target,
    weights: Stored,
    request: Request,
    *,
    available: int,
    process_bytes: int,
) -> int | None:
    """The most visual tokens over all pictures that fit, at most the stock sequences'; None where not even 0 does.

    `largest_visual_budget` bounds it from above by the cache alone; workspace and buffers grow with the tokens as well.
    """
    text = text_model(model, target)

    def fits(visual: int) -> bool:
        limits = request.limits(model, Budget(absolute=visual))
        return footprint(model, target, weights, limits, process_bytes).peak <= available

    try:
        high = largest_visual_budget(
            text,
            max(0, available - process_bytes - weights.weights),
            text_tokens=request.text_tokens,
            new_tokens=request.new_tokens,
            batch=request.batch,
        )
    except LimitError:  # text and answer alone are beyond the memory, or the model's positions
        return None
    low, high = -1, min(high, request.images * model.tiling.max_stock_tokens)
    while low < high:  # the answer lies in low..high: the peak never falls as tokens are added
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return None if low < 0 else low
