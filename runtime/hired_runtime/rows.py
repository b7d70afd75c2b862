"""The rows of the key-value cache: who uses which, and what each still holds of earlier requests."""

from __future__ import annotations

import numpy as np

from hired_runtime.prefix import NOTHING, Names, common


class Rows:
    """Args:
    count: B of the cache.

    Attributes:
        free: rows that nobody uses, the longest unused first.
    """

    def __init__(self, count: int) -> None:
        self.free = list(range(count))
        self._parts: list[list[Names]] = [[] for _ in range(count)]

    def held(self, row: int) -> Names:
        """What the row's slots hold, from the first on, (S, 4)."""
        parts = self._parts[row]
        if len(parts) > 1:
            parts[:] = [np.concatenate(parts)]
        return parts[0] if parts else NOTHING

    def filled(self, row: int) -> int:
        """Slots of the row that hold something."""
        return sum(map(len, self._parts[row]))

    def choose(self, names: Names) -> tuple[int, int]:
        """A free row for a prompt, and how many of its positions the row holds already.

        The one that shares most, if that is more than half of what it holds, as it does where a conversation goes on;
        otherwise, lest a conversation be lost for a system prompt's sake, the one that was unused for longest.
        """
        shared = {row: common(self.held(row), names) for row in self.free}
        fond = [row for row in self.free if 2 * shared[row] > self.filled(row)]
        row = max(fond, key=shared.__getitem__) if fond else self.free[0]
        return row, shared[row]

    def longest(self, names: Names) -> tuple[int, int]:
        """The row, in use or not, that holds most of a prompt, and how many of its positions."""
        shared = [common(self.held(row), names) for row in range(len(self._parts))]
        return int(np.argmax(shared)), max(shared)

    def take(self, row: int) -> None:
        """The row is in use."""
        self.free.remove(row)

    def hold(self, row: int, names: Names) -> None:
        """The row holds this from its first slot on, and nothing behind it."""
        self._parts[row] = [names]

    def write(self, row: int, names: Names) -> None:
        """These were written behind what the row holds."""
        self._parts[row].append(names)

    def give_back(self, row: int) -> None:
        """The row is free; what it holds stays."""
        self.free.append(row)
