"""What the kills found, as a table on the terminal and in docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.crashes.cases import NOTHING, OLD
from tests.crashes.processes import ROOT
from tests.crashes.trials import MIXED, NEW

PAGE = ROOT / "docs/reliability.md"
FOUND = (NOTHING, OLD, NEW, MIXED)


@dataclass
class Row:
    """Of a command that started from one state.

    Args:
        found: how often each state was found after a kill.
        finished: how often the same command came to the same result afterwards.
    """

    command: str
    start: str
    found: Counter[str] = field(default_factory=Counter)
    finished: int = 0

    @property
    def cells(self) -> list[str]:
        counts = [str(self.found[each]) if self.found[each] else "" for each in FOUND]
        return [self.command, self.start, str(self.found.total()), *counts, str(self.finished)]


def table(rows: Sequence[Row], moments: str) -> str:
    """`moments`: what the third column counts."""
    heading = ("command", "there before", moments, *FOUND, "the same command finished")
    lines = [heading, ["---"] * len(heading), *(row.cells for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def framed(content: str) -> str:
    """As it stands in the page."""
    return f"\n{content}\n\n"


def shares(kills: int, weights: Mapping[str, int]) -> dict[str, int]:
    """How many of the kills each gets, by weight; together at least as many as asked for."""
    total = sum(weights.values())
    return {name: -(-kills * weight // total) for name, weight in weights.items()}
