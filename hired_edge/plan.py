"""Memory arithmetic: what an opening of a bundle takes and, in reverse, the visual budget that a cache allows.

Pure arithmetic on the manifest; nothing is measured and no file is opened. What it does not know: an engine's own
tactics, its packed copies of weights while loading, and the process around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hired_edge.errors import LimitError
from hired_edge.limits import MULTIPLE, Limits
from hired_edge.tiling import TilingRules

if TYPE_CHECKING:  # a manifest holds a plan
    from hired_edge.manifest import Graph, Manifest, TextModel

ITEMSIZE = {"float32": 4, "float16": 2}

PREFILL_WIDTHS = 12
"""Rows of width D alive at once per token in a decoder layer, for the estimate of `MemoryPlan.prefill`: the residual,
its normalised copy and the MLP's gate, up and product at up to 3.5 D each (the widest common MLP)."""

PREFILL_CHUNK = 512
"""Positions that a prefill on the CPU takes at a time: memory between two operators is bounded by it (attention's
scores, heads x 512 x sequence length, apart), and what one layer's operators hand on stays near the cores."""

TILES_AT_ONCE = 1
"""Tiles of a picture that a run of the tower on the CPU takes: more need the memory of each, and were no faster with
CLIP ViT-L/14-336 on two cores (docs/performance.md)."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that an opened bundle takes. A manifest records those of the exported maxima."""

    weights: int
    """Both graphs and their external data, by their files' sizes."""
    kv_cache: int
    """Exact."""
    kv_cache_formula: str
    """The cache's bytes, multiplied out."""
    buffers: int
    """The tensors bound to the two graphs, other than the cache, for the largest request. Exact."""
    prefill: int
    """An estimate of what a decoder layer needs during prefill, attention counted as fused (no S x M scores). Of the
    whole prompt at once, which the CPU's runtime no longer does: manifests hold the figure, so it stays as it is."""
    embedding_mapped: int
    """The embedding table on disk. Only rows in use take memory, which the system may drop: not part of `total`."""

    @property
    def total(self) -> int:
        """What must stay in memory at once."""
        return self.weights + self.kv_cache + self.buffers + self.prefill


NO_PLAN = MemoryPlan(0, 0, "", 0, 0, 0)
"""Of a manifest that is still being made."""


def kv_bytes_per_token(text: TextModel) -> int:
    """Bytes of one token's keys and values in one batch row: 2 L G Dh, in the cache's dtype."""
    return 2 * text.layers * text.kv_heads * text.head_dim * ITEMSIZE[text.cache_dtype]


def kv_cache_bytes(text: TextModel, max_sequence_length: int, batch: int) -> int:
    """Bytes of the whole cache: 2 L tensors of (B, G, M, Dh)."""
    return kv_bytes_per_token(text) * max_sequence_length * batch


def kv_cache_formula(text: TextModel, max_sequence_length: int, batch: int) -> str:
    """ "2 x 32 layers x 8 kv heads x 128 x 2 bytes x 960 slots x 1 rows = 125829120": key and value, each layer's."""
    item = ITEMSIZE[text.cache_dtype]
    sizes = f"2 x {text.layers} layers x {text.kv_heads} kv heads x {text.head_dim} x {item} bytes"
    total = kv_cache_bytes(text, max_sequence_length, batch)
    return f"{sizes} x {max_sequence_length} slots x {batch} rows = {total}"


def memory_plan(manifest: Manifest, limits: Limits | None = None) -> MemoryPlan:
    """What a bundle takes when opened with `limits`; by default with everything it was exported for."""
    limits = manifest.limits if limits is None else limits
    text, slots = manifest.text, manifest.cache_length(limits)
    tokens = limits.batch * (limits.visual_tokens + limits.text_tokens)
    return MemoryPlan(
        weights=sum(
            _graph_bytes(manifest, graph) for graph in (manifest.vision_graph, manifest.language_graph(limits))
        ),
        kv_cache=kv_cache_bytes(text, slots, limits.batch),
        kv_cache_formula=kv_cache_formula(text, slots, limits.batch),
        buffers=buffer_bytes(
            text,
            manifest.vision.tiling,
            limits,
            slots,
            masked="attention_mask" in manifest.language_graph(limits).inputs,
            keys=manifest.vision.keys or 0,
        ),
        prefill=PREFILL_WIDTHS * tokens * text.hidden_size * ITEMSIZE[text.activation_dtype],
        embedding_mapped=manifest.files[manifest.embedding].bytes,
    )


def buffer_bytes(
    text: TextModel, tiling: TilingRules, limits: Limits, slots: int, *, masked: bool, keys: int = 0
) -> int:
    """Every picture's pixel_values, attention maps and features; then the language graph's inputs and logits.

    An `append` graph also gives out the new keys and values of a whole prefill.

    Args:
        slots: of the cache, M.
        masked: whether the language graph takes a mask (B, 1, S, M).
        keys: width of the keys that the vision graph gives, 0 for none.
    """
    tokens = limits.batch * (limits.visual_tokens + limits.text_tokens)
    item = ITEMSIZE[text.activation_dtype]
    tiles = limits.images * limits.tiles
    patches = tiles * tiling.patches_per_tile
    pixels = tiles * 3 * tiling.image_size**2 * item
    vision = pixels + patches * text.hidden_size * item + (2 + keys) * patches * ITEMSIZE["float32"]
    embeds = tokens * text.hidden_size * item
    mask = tokens * slots if masked else 0
    updates = tokens * kv_bytes_per_token(text) if text.cache == "append" else 0
    logits = limits.batch * text.vocab_size * ITEMSIZE["float32"]
    return vision + embeds + mask + updates + logits


def largest_visual_budget(
    text: TextModel, cache_bytes: int, *, text_tokens: int, new_tokens: int, batch: int = 1
) -> int:
    """The most visual tokens whose cache fits, rounding of M included; also bounded by the rotary tables.

    Args:
        text: the language model.
        cache_bytes: what may be spent on the cache.
        text_tokens, new_tokens, batch: the rest of the opening.

    Raises:
        LimitError: not even a budget of 0 fits.
    """
    affordable = min(cache_bytes // (kv_bytes_per_token(text) * batch), text.positions)
    visual = affordable // MULTIPLE * MULTIPLE - text_tokens - new_tokens
    if visual < 0:
        least = kv_cache_bytes(text, -(-(text_tokens + new_tokens) // MULTIPLE) * MULTIPLE, batch)
        raise LimitError(
            f"{text_tokens} text and {new_tokens} new tokens for {batch} rows in a cache of {cache_bytes} bytes",
            expected=f"at least {least} bytes and at most {text.positions} positions",
            fix="allow fewer tokens or rows, or more memory",
        )
    return visual


def _graph_bytes(manifest: Manifest, graph: Graph) -> int:
    return sum(manifest.files[name].bytes for name in {graph.file, *graph.data})
