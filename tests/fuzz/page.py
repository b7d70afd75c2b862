"""What a run found as a table, on the terminal and in docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import standing
from tests.fuzz.slot import Figures

NAME = "fuzzing"
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


def figures(text: str, rows: Mapping[str, Sequence[str]], above: str) -> str:
    """Those of the page with these rows in place of those of the same surfaces; the others stay."""
    lines = [line.strip("| ").split(" | ") for line in standing(text, NAME).splitlines() if line.startswith("| ")]
    known = {line[0]: line for line in lines if len(line) == len(COLUMNS) and line[0] not in (COLUMNS[0], "---")}
    every = [rows.get(name) or known[name] for name in sorted({*known, *rows})]
    return f"\n{above}\n\n{table(every)}\n\n"
