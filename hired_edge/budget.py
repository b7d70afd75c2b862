"""How many visual tokens, and how many for each partition: the budget, and phase 1 of HiRED (the paper's Eq. 1).

Counts only: it decides how many tokens a partition keeps, never which. Every division is exact (integers, fractions),
so the same scores give the same counts on every machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from hired_edge.errors import InputError
from hired_edge.tiling import Tiling, TilingRules

_INTEGER = re.compile(r"[0-9]{1,9}")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,18})?) ?%")


@dataclass(frozen=True)
class Budget:
    """Visual positions in the language model's sequence: `absolute`, or a `percent` of what the picture has.

    100 % is the whole stock sequence, newlines included. Any other percentage is of T*N, rounded half up once for each
    picture. An absolute budget is one budget for all pictures of a request. Exactly one of the two is set.
    """

    absolute: int | None = None
    percent: Fraction | None = None

    def __post_init__(self) -> None:
        assert (self.absolute is None) != (self.percent is None), self
        assert self.absolute is None or self.absolute >= 0, self
        assert self.percent is None or 0 <= self.percent <= 100, self

    def __str__(self) -> str:
        if self.percent is None:
            return str(self.absolute)
        return f"{Decimal(self.percent.numerator) / self.percent.denominator:f}%"

    @property
    def is_stock(self) -> bool:
        """Whether this is 100 %: every token of the stock sequence, newlines included."""
        return self.percent == 100

    def tokens(self, tilings: Sequence[Tiling]) -> int:
        """Visual positions that these pictures may take together."""
        if self.absolute is not None:
            return self.absolute
        return sum(self._of(tiling.patches, tiling.stock_tokens) for tiling in tilings)

    def max_tokens(self, rules: TilingRules, pictures: int = 1) -> int:
        """The most `tokens` returns for this many pictures of any size: what an export is sized by."""
        if self.absolute is not None:
            return self.absolute
        return pictures * self._of(rules.max_tiles * rules.patches_per_tile, rules.max_stock_tokens)

    def split(
        self, tilings: Sequence[Tiling], usable: Sequence[int], charged: Sequence[int] | None = None
    ) -> list[int]:
        """The budget of each picture; they sum to `tokens(tilings)`.

        An absolute budget is split in proportion to T*N by largest remainders, after what is charged first. What a
        picture cannot use goes to those that can; what nobody can use is split the same way, to be reported as unused.

        Args:
            usable: the most positions each picture can take under the newline policy.
            charged: positions that each picture must have before anything is shared (`all-rows`); 0 by default.
        """
        if self.absolute is None:
            return [self._of(tiling.patches, tiling.stock_tokens) for tiling in tilings]
        weights = [tiling.patches for tiling in tilings]
        useful = min(self.absolute, sum(usable))
        first = list(charged) if charged is not None and sum(charged) <= useful else [0] * len(weights)
        room = [most - has for most, has in zip(usable, first, strict=True)]
        rest = _fill([0] * len(weights), useful - sum(first), weights, room)
        shares = [a + b for a, b in zip(first, rest, strict=True)]
        return [a + b for a, b in zip(shares, apportion(self.absolute - useful, weights), strict=True)]

    def _of(self, patches: int, stock_tokens: int) -> int:
        assert self.percent is not None
        return stock_tokens if self.is_stock else math.floor(self.percent * patches / 100 + Fraction(1, 2))


def parse_budget(text: str | int) -> Budget:
    """Read "576" (visual tokens) or "20%" ("33.3%"; exact, never a float).

    Raises:
        InputError: anything else: negative, above 100 %, a fraction of a token, not a number.
    """
    stripped = str(text).strip()
    if _INTEGER.fullmatch(stripped):
        return Budget(absolute=int(stripped))
    match = _PERCENT.fullmatch(stripped)
    if match and (percent := Fraction(match[1])) <= 100:
        return Budget(percent=percent)
    expected = 'a whole number of tokens ("576") or a percentage from 0% to 100% ("20%")'
    raise InputError(
        f"a visual-token budget of {str(text)[:40]!r}", expected=expected, fix="pass another --visual-tokens"
    )


def parse_alpha(alpha: float | str | Fraction) -> Fraction:
    """The allocation ratio as written: 0.1 is one tenth, not the nearest binary fraction.

    Raises:
        InputError: not a number from 0 to 1.
    """
    try:
        exact = Fraction(str(alpha))
    except (ValueError, ZeroDivisionError):
        exact = Fraction(-1)
    if not 0 <= exact <= 1:
        got = f"an allocation ratio alpha of {str(alpha)[:40]}"
        raise InputError(got, expected="a number from 0 to 1", fix="pass another --alpha (the paper uses 0.5)")
    return exact


def allocate(budget: int, scores: Sequence[int], capacities: Sequence[int], alpha: Fraction) -> list[int]:
    """Phase 1: the tokens that each partition keeps, base first. They sum to min(budget, sum(capacities)).

    N_0 = floor(alpha * budget). The sub-images share the rest: floors of N_sub * s_i / sum(s), then largest remainders.
    What exceeds a partition's capacity then goes, in proportion to the scores, to the sub-images with room, and to the
    base picture once they are full. Ties go to the lower index. Sub-images that all score 0 share equally.

    Args:
        budget: tokens to keep, newlines not counted.
        scores: s_i of each sub-image, T-1, as integers (`exact_weights`).
        capacities: eligible patches of each partition, T.
        alpha: the base picture's share, 0 to 1.
    """
    budget = min(budget, sum(capacities))
    base = alpha.numerator * budget // alpha.denominator
    return _fill([base] + [0] * len(scores), budget - base, [None, *scores], capacities)


def apportion(amount: int, weights: Sequence[int]) -> list[int]:
    """Split `amount` in proportion to `weights`: floors, then largest remainders, ties to the lower index.

    Equally if all weights are 0.
    """
    total = sum(weights)
    if total == 0:
        weights, total = [1] * len(weights), len(weights)
    parts = [divmod(amount * weight, total) for weight in weights]
    shares = [share for share, _ in parts]
    left = amount - sum(shares)
    if left:
        remainders = [-remainder for _, remainder in parts]
        for i in sorted(range(len(parts)), key=remainders.__getitem__)[:left]:
            shares[i] += 1
    return shares


def exact_weights(scores: Sequence[float]) -> list[int]:
    """The same proportions in integers: a float is an integer over a power of two. Not above 0 counts as 0."""
    ratios = [max(score, 0.0).as_integer_ratio() for score in scores]
    denominator = max((ratio[1] for ratio in ratios), default=1)
    return [numerator * (denominator // own) for numerator, own in ratios]


def _fill(counts: list[int], spare: int, weights: Sequence[int | None], capacities: Sequence[int]) -> list[int]:
    """Add `spare` to `counts` in proportion to `weights`, and redistribute whatever exceeds a capacity until all fits.

    A weight of None marks the last resort: it takes part once nothing else has room.
    """
    assert sum(counts) + spare <= sum(capacities), (counts, spare, capacities)
    while True:
        room = [i for i, count in enumerate(counts) if count < capacities[i]]
        room = [i for i in room if weights[i] is not None] or room
        for i, share in zip(room, apportion(spare, [weights[i] or 0 for i in room]), strict=True):
            counts[i] += share
        spare = 0
        for i, capacity in enumerate(capacities):
            if counts[i] > capacity:
                spare += counts[i] - capacity
                counts[i] = capacity
        if not spare:
            return counts
