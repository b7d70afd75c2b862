"""From a visual-token budget to everything static: a bundle's limits, their derivation, requests against them.

The budget is decided once. At export it gives the maxima that the manifest records; at opening it may be made smaller
(`resolve_opening`), which makes the cache smaller. This module does arithmetic on numbers: it knows no bundle and no
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hired_edge.budget import Budget, parse_budget
from hired_edge.errors import InputError, LimitError
from hired_edge.tiling import TilingRules

MULTIPLE = 64
"""Sequence lengths are rounded up to this."""


@dataclass(frozen=True)
class Limits:
    """What a bundle was exported for, or opened with. Every number is a maximum; sequence numbers are per batch row."""

    visual_tokens: int
    """Positions of all pictures of a request together, newlines included."""
    text_tokens: int
    new_tokens: int
    batch: int
    images: int
    """Pictures in a request."""
    tiles: int
    """Partitions of one picture, the base included."""
    max_sequence_length: int
    """M: the length of the cache."""
    budgets: tuple[str, ...]
    """The budgets as they were asked for ("20%", "576")."""
    formula: str
    """How max_sequence_length came about, with numbers."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value < 2**31:
                expected = f"{least} or more" if value < least else f"less than {2**31}"
                raise InputError(f"{name} is {value}", expected=expected, fix=f"choose another {name}")
        if not self.budgets:
            raise InputError("no budget is given", expected="at least one", fix="choose a budget such as 20%")
        derived = formula(self.visual_tokens, self.text_tokens, self.new_tokens)
        length = max_sequence_length(self.visual_tokens, self.text_tokens, self.new_tokens)
        if (self.max_sequence_length, self.formula) != (length, derived):
            raise InputError(
                f"max_sequence_length is {self.max_sequence_length} by the formula {self.formula[:80]!a}",
                expected=derived,
                fix="export again",
            )


_LEAST = {"visual_tokens": 0, "text_tokens": 1, "new_tokens": 1, "batch": 1, "images": 1, "tiles": 1}


def max_sequence_length(visual: int, text: int, new: int) -> int:
    """M: the sum of the three, rounded up to a multiple of 64."""
    return -(-(visual + text + new) // MULTIPLE) * MULTIPLE


def formula(visual: int, text: int, new: int) -> str:
    """The derivation of M, written out: "ceil64(576 visual + 256 text + 128 new) = 960"."""
    return f"ceil{MULTIPLE}({visual} visual + {text} text + {new} new) = {max_sequence_length(visual, text, new)}"


def derive_limits(
    rules: TilingRules,
    budgets: Sequence[Budget],
    *,
    text_tokens: int,
    new_tokens: int,
    batch: int = 1,
    images: int = 1,
) -> Limits:
    """The limits of an export: sized by the largest of the budgets, for the largest pictures.

    100 % gives the longest stock sequence over all grids, newlines included; P % of the patches of the largest grid,
    rounded half up; each times `images`. A number is one budget over all pictures.

    Args:
        rules: the family's geometry.
        budgets: as asked for; at least one.
        text_tokens, new_tokens: per batch row.
        batch, images: rows at once, and pictures in each row's request.

    Raises:
        InputError: a number below its least value, or no budget.
    """
    visual = max((budget.max_tokens(rules, images) for budget in budgets), default=0)
    return Limits(
        visual_tokens=visual,
        text_tokens=text_tokens,
        new_tokens=new_tokens,
        batch=batch,
        images=images,
        tiles=rules.max_tiles,
        max_sequence_length=max_sequence_length(visual, text_tokens, new_tokens),
        budgets=tuple(str(budget) for budget in budgets),
        formula=formula(visual, text_tokens, new_tokens),
    )


def cache_lengths(limits: Limits, rules: TilingRules) -> tuple[int, ...]:
    """M of each exported budget, ascending, each once: what graphs with a fixed cache length are made for."""
    visual = [parse_budget(budget).max_tokens(rules, limits.images) for budget in limits.budgets]
    lengths = {max_sequence_length(tokens, limits.text_tokens, limits.new_tokens) for tokens in visual}
    return tuple(sorted(lengths))


def check_positions(limits: Limits, positions: int, images_flag: str) -> Limits:
    """The limits themselves, where the text model has positions for them.

    Raises:
        LimitError: more positions than the rotary tables have.
    """
    if limits.max_sequence_length > positions:
        raise LimitError(
            f"a maximum sequence length of {limits.max_sequence_length} ({limits.formula})",
            expected=f"at most {positions}, the text model's max_position_embeddings",
            fix=f"lower --visual-tokens, --max-text-tokens, --max-new-tokens or {images_flag}",
        )
    return limits


def rederive(limits: Limits, rules: TilingRules) -> Limits:
    """What `derive_limits` gives for the budgets and the numbers that an export's limits record.

    Raises:
        InputError: a recorded budget is none.
    """
    return derive_limits(
        rules,
        [parse_budget(budget) for budget in limits.budgets],
        text_tokens=limits.text_tokens,
        new_tokens=limits.new_tokens,
        batch=limits.batch,
        images=limits.images,
    )


def resolve_opening(
    limits: Limits,
    rules: TilingRules,
    *,
    visual: Budget | None = None,
    text_tokens: int | None = None,
    new_tokens: int | None = None,
    batch: int | None = None,
    images: int | None = None,
) -> Limits:
    """The limits to open a bundle with: the exported maxima, or less.

    Fewer pictures without a budget keep the exported visual tokens, since an absolute budget is over all pictures.

    Raises:
        LimitError: more is asked than was exported.
        InputError: a number below its least value.
    """
    asked = {
        "text_tokens": limits.text_tokens if text_tokens is None else text_tokens,
        "new_tokens": limits.new_tokens if new_tokens is None else new_tokens,
        "batch": limits.batch if batch is None else batch,
        "images": limits.images if images is None else images,
    }
    asked["visual_tokens"] = limits.visual_tokens if visual is None else visual.max_tokens(rules, asked["images"])
    for name, value in asked.items():
        _within(name, value, getattr(limits, name), "exported")
    positions = (asked["visual_tokens"], asked["text_tokens"], asked["new_tokens"])
    return replace(
        limits,
        **asked,
        max_sequence_length=max_sequence_length(*positions),
        budgets=limits.budgets if visual is None else (str(visual),),
        formula=formula(*positions),
    )


def check_request(
    limits: Limits, *, visual: int, text: int, new: int, batch: int = 1, images: int = 1, tiles: int = 1
) -> None:
    """Check a request, in tokens of one batch row, before anything is run.

    Each limit stands by itself: text may not borrow what the picture leaves unused, so that whether a prompt fits
    does not depend on the picture.

    Raises:
        LimitError: the first limit that is exceeded, with the built and the asked number.
    """
    asked = {
        "visual_tokens": visual,
        "text_tokens": text,
        "new_tokens": new,
        "batch": batch,
        "images": images,
        "tiles": tiles,
    }
    for name, value in asked.items():
        assert value >= 0, name
        _within(name, value, getattr(limits, name), "opened")
    assert visual + text + new <= limits.max_sequence_length  # by the formula


def _within(name: str, asked: int, built: int, how: str) -> None:
    if asked > built:
        raise LimitError(
            f"{asked} {_NAMES[name]} asked for",
            expected=f"at most {built}, which the bundle was {how} with",
            fix=f"ask for fewer, or export again with {_FLAGS[name]}",
        )


_NAMES = {
    "visual_tokens": "visual tokens",
    "text_tokens": "text tokens",
    "new_tokens": "new tokens",
    "batch": "batch rows",
    "images": "pictures",
    "tiles": "tiles of a picture",
}
_FLAGS = {
    "visual_tokens": "a larger --visual-tokens",
    "text_tokens": "a larger --max-text-tokens",
    "new_tokens": "a larger --max-new-tokens",
    "batch": "a larger --max-batch",
    "images": "a larger --max-images",
    "tiles": "a checkpoint that has such a grid",
}
