"""Optimisation profiles from a bundle's limits. Arithmetic alone: no TensorRT, no file.

A profile says, for each input, the smallest, the expected and the largest shape. What is expected is the largest: a
budget was chosen for it. The language engine has two profiles, one for decoding (S = 1) and one for prefill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hired_edge.engine_record import ShapeRange
from hired_edge.errors import BundleError
from hired_edge.limits import Limits
from hired_edge.manifest import TextModel
from hired_edge.strict import MEND, show

Profile = dict[str, ShapeRange]
Shape = tuple[int, ...]

DECODE, PREFILL = 0, 1
"""Where the two stand in a language engine that has both; one over fp16 weights has the second alone."""


def vision_profiles(image_size: int, tiles: int) -> tuple[Profile, ...]:
    """One profile: pixel_values (T, 3, h, w), T from 1 to the largest grid's tiles."""
    return ({"pixel_values": between((1, 3, image_size, image_size), (tiles, 3, image_size, image_size))},)


def language_profiles(
    text: TextModel, inputs: Sequence[str], *, batch: int, prompt: int, max_sequence_length: int
) -> tuple[Profile, Profile]:
    """Decode (S = 1) and prefill (S = 1..prompt), for 1 to `batch` rows.

    Args:
        text: the language model.
        inputs: of its graph; an `append` graph may do without some.
        batch: rows at most.
        prompt: tokens of a prompt at most, visual ones included.
        max_sequence_length: M of the graph.

    Raises:
        BundleError: the graph has an input that no rule here covers.
    """
    assert 1 <= prompt <= max_sequence_length, (prompt, max_sequence_length)

    def profile(longest: int) -> Profile:
        small = _shapes(text, 1, 1, max_sequence_length)
        large = _shapes(text, batch, longest, max_sequence_length)
        return {name: between(small[name], large[name]) for name in inputs}

    unknown = sorted(set(inputs) - _shapes(text, 1, 1, max_sequence_length).keys())
    if unknown:
        raise BundleError(f"the language graph reads {show(unknown[0])}", expected="the inputs of a decoder", fix=MEND)
    return profile(1), profile(prompt)


def longest_prompt(limits: Limits, max_sequence_length: int) -> int:
    """Tokens of a prompt at most: the cache less one new token, or all visual and text tokens if that is less."""
    return min(limits.visual_tokens + limits.text_tokens, max_sequence_length - 1)


def between(smallest: Shape, largest: Shape) -> ShapeRange:
    """Tuned for the largest."""
    return ShapeRange(smallest, largest, largest)


def fitting(profiles: Sequence[Mapping[str, ShapeRange]], shapes: Mapping[str, Shape]) -> int | None:
    """The first profile in which these inputs can run; None if there is none."""
    for number, profile in enumerate(profiles):
        if all(name in profile and profile[name].holds(shape) for name, shape in shapes.items()):
            return number
    return None


def _shapes(text: TextModel, batch: int, tokens: int, slots: int) -> dict[str, Shape]:
    """Every input of a language graph (design, "The graphs")."""
    cache = (batch, text.kv_heads, slots, text.head_dim)
    return {
        "inputs_embeds": (batch, tokens, text.hidden_size),
        "position_ids": (batch, tokens),
        "attention_mask": (batch, 1, tokens, slots),
        "write_indices": (batch,),
        "last_token": (batch,),
        **{f"past_key_values.{i}.{part}": cache for i in range(text.layers) for part in ("key", "value")},
    }
