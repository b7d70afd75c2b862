"""What a run found as a table, on the terminal and in docs/reliability.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fuzz.slot import Figures

PAGE = Path(__file__).resolve().parents[2] / "docs/reliability.md"
COLUMNS = (
    "surface",
    "inputs",
    "taken",
    "inputs a CPU second",
    "slowest, ms",
    "MiB at 10 %",
    "MiB at the end",
    "MiB at most",
)
_PLACE = re.compile(r"(<!-- figures: fuzzing -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def row(name: str, found: Figures) -> list[str]:
    mib = [f"{count / 2**20:.1f}" for count in (found.memory_early, found.memory, found.peak)]
    return [
        name,
        str(found.inputs),
        f"{100 * found.taken / max(1, found.inputs):.1f} %",
        f"{found.inputs / max(1e-9, found.spent_ns / 1e9):.0f}",
        f"{found.slowest_ns / 1e6:.1f}",
        *mib,
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (COLUMNS, ["---"] * len(COLUMNS), *rows))


def filled(text: str, rows: Mapping[str, Sequence[str]], above: str) -> str:
    """The page with these rows in place of those of the same surfaces; the others stay."""
    place = _PLACE.search(text)
    assert place is not None, "the page has no place for the figures of fuzzing"
    lines = [line.strip("| ").split(" | ") for line in place[0].splitlines() if line.startswith("| ")]
    known = {line[0]: line for line in lines if len(line) == len(COLUMNS) and line[0] not in (COLUMNS[0], "---")}
    every = [rows.get(name) or known[name] for name in sorted({*known, *rows})]
    return _PLACE.sub(lambda match: f"{match[1]}\n{above}\n\n{table(every)}\n\n{match[2]}", text)
