"""How much time and room a chat template may take, and how large what it makes would be. Knows nothing of jinja2.

What it does not know: how long one operation takes on values of the allowed size, which is milliseconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import Any

LIMIT_S = 0.15
"""Of processor time for a rendering, beside a two-thousandth of a second for each part that was given."""
_PAUSE_S = 0.02
"""No operation on values of the allowed size takes so long: what is above it was the machine (a collection of garbage,
a hypervisor) and is not held against the template."""
LONGEST = 2**18
"""Characters of any one value, beside eight for each that was given; a list counts with all that is in it."""
TOGETHER = 64
"""So many times the longest, of all values that are made."""
_MOST_BITS = 2048
"""Of a whole number."""
_MOST_STEPS = 2**26
"""Of a search that compares every place of a text with all that is searched for."""
_TOO_LARGE = "it makes too large a number"
_MOST_NUMBER = 1000
_ITEM = 4
"""Characters that something else than a text counts as."""
_PLAIN = re.compile(r"(?:[^%]|%%|%(?:\(\w+\))?[sdr])*")
"""What a text before `%` may be: no widths."""


class TooMuchError(Exception):
    """The template has taken more time or room than it may."""


class Meter:
    """Of one rendering, by one thread.

    Args:
        given: characters of what the template is given.
        parts: of what it may loop over.
    """

    def __init__(self, given: int, parts: int) -> None:
        self.longest = LONGEST + 8 * given
        self._left = TOGETHER * self.longest
        self._left_s, self._seen = LIMIT_S + parts / 2000, time.thread_time()

    def look(self) -> None:
        """Raises TooMuchError: the time is over."""
        now = time.thread_time()
        self._left_s -= min(now - self._seen, _PAUSE_S)
        self._seen = now
        if self._left_s < 0:
            raise TooMuchError("it takes too long")

    def take(self, characters: int) -> None:
        """Before or after so much is made.

        Raises:
            TooMuchError: it is too long a value, or one too many.
        """
        self._left -= characters
        if characters > self.longest or self._left < 0:
            raise TooMuchError("it makes too long a text or list")

    def made(self, value: Any) -> Any:
        """The value itself, once its size is taken.

        Raises:
            TooMuchError: as `take`; a number of too many digits.
        """
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise TooMuchError(_TOO_LARGE)
        self.take(self.size(value))
        return value

    def size(self, value: Any) -> int:
        """Characters that it prints as, roughly; what is in lists is counted until it is too much."""
        if isinstance(value, str):
            return len(value)
        total, pending = 0, [value]
        while pending and total <= self.longest:
            item = pending.pop()
            total += _ITEM + (len(item) if isinstance(item, str) else 0)
            if isinstance(item, int):
                total += item.bit_length() // 3
            elif isinstance(item, Mapping):
                pending.extend((*item.keys(), *item.values()))
            elif isinstance(item, (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)):
                pending.extend(item)
        return total

    def operated(self, operator: str, left: Any, right: Any) -> None:
        """Before `left operator right` is made."""
        self.look()
        if operator == "%" and isinstance(left, str):
            if not _PLAIN.fullmatch(left):
                raise TooMuchError("it formats a text with more than %s, %d or %r")
            self.take(len(left) + left.count("%") * self.size(right))
        elif operator == "*" and not (_is_number(left) and _is_number(right)):
            times, value = (left, right) if _is_number(left) else (right, left)
            self.take(self.size(value) * max(0, int(times)) if isinstance(times, int) else 0)
        elif operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            times = right.bit_length() if operator == "*" else 0
            if left.bit_length() * (right if operator == "**" else 1) + times > _MOST_BITS:
                raise TooMuchError(_TOO_LARGE)
        elif operator == "+" and not _is_number(left):
            self.take(self.size(left) + self.size(right))

    def replaced(self, text: str, old: str, new: str) -> None:
        """Before every `old` in a text becomes `new`."""
        self.take(len(text) + (text.count(old) if old else len(text) + 1) * len(new))

    def joined(self, separator: str, items: list[Any]) -> None:
        """Before items become one text."""
        self.take(self.size(items) + len(separator) * len(items))

    def searched(self, text: Any, *wanted: Any) -> None:
        """Before a text is searched from its end, or stripped of characters.

        Raises:
            TooMuchError: it would take too many steps.
        """
        longest = max((len(each) for each in wanted if isinstance(each, str)), default=0)
        if isinstance(text, str) and len(text) * longest > _MOST_STEPS:
            raise TooMuchError("it searches a long text for a long text")

    def numbered(self, *numbers: Any) -> None:
        """Before a function pads, cuts or rounds by a number.

        Raises:
            TooMuchError: a whole number beyond what texts are padded to.
        """
        if any(isinstance(number, int) and abs(number) > _MOST_NUMBER for number in numbers):
            raise TooMuchError(f"it uses a number above {_MOST_NUMBER} where a width or a count is meant")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
