"""What a run found, as frozen dataclasses, and its section of docs/performance.md. Nothing here measures."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.cpu.page import table
from benchmarks.cpu.results import Where

MAPS, SDPA, STOCK = "PyTorch, attention maps", "PyTorch, SDPA", "ONNX Runtime, plain export"
BUDGETS = ("40%", "20%", "10%")
MTMD = {weights: f"llama.cpp mtmd, {weights}" for weights in ("F16", "Q8_0")}
GIB = 2**30


@dataclass(frozen=True)
class Agreement:
    """Of a side's outputs with those of `MAPS`.

    Args:
        cosine: of a patch's features, the mean over patches.
        least_cosine: the smallest.
        kept: the share of kept tokens that both keep, by budget; none for a side without attention maps.
    """

    cosine: float
    least_cosine: float
    kept: dict[str, float]


@dataclass(frozen=True)
class Side:
    """One way to encode the tiles; `seconds` one a round; no agreement for a side that has other weights."""

    name: str
    seconds: tuple[float, ...]
    agreement: Agreement | None

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True)
class Run:
    """Everything."""

    written: str
    command: str
    shape: str
    tiles: int
    where: Where
    sides: tuple[Side, ...]
    left_out: tuple[str, ...]

    def times(self, side: Side, other: str) -> float | None:
        """How many times as fast a side is as another; None where that was not measured."""
        found = [each for each in self.sides if each.name == other]
        return found[0].median / side.median if found else None


def section(run: Run) -> str:
    """One run, as a part of the page."""
    measured = {side.name for side in run.sides}
    others = [MAPS, STOCK, *[name for name in [MTMD["F16"]] if name in measured]]
    heading = ["", f"{run.tiles} tiles, s", *[f"times the speed of {name}" for name in others]]
    heading += ["cosine of features, mean (least)", f"same tokens kept at {', '.join(BUDGETS)}"]
    rows = []
    for side in run.sides:
        times = [run.times(side, name) for name in others]
        ratios = ["" if value is None else f"{value:.2f}" for value in times]
        rows.append([side.name, f"{side.median:.2f}", *ratios, *_agreement_cells(side.agreement)])
    count = max(len(side.seconds) for side in run.sides)
    lines = [
        f"## {run.written}: the vision tower of {run.shape}",
        "",
        run.where.line(run.command),
        "",
        *table(heading, rows),
        "",
        f"Medians of {count}, from pixels to projected features; agreement is with {MAPS}. Random weights lack the",
        "outliers of trained ones: what int8 costs a trained model is not to be read from this table. On a CPU ours",
        "goes tile by tile. The attention maps are those of every layer, as transformers' `output_attentions` gives",
        "them; HiRED's own code hooks two layers beside SDPA. PyTorch computes a last layer that nothing reads.",
        "",
    ]
    if measured.intersection(MTMD.values()):
        lines += [
            "llama.cpp's mtmd encodes tile by tile, has random weights of its own and gives no attention maps.",
            "",
        ]
    if run.left_out:
        lines += [f"Left out: {'; '.join(run.left_out)}.", ""]
    return "\n".join(lines) + "\n"


def _agreement_cells(found: Agreement | None) -> list[str]:
    if found is None:
        return ["", ""]
    kept = " / ".join(f"{100 * share:.1f}" for share in found.kept.values())
    return [f"{found.cosine:.5f} ({found.least_cosine:.5f})", kept and f"{kept} %"]
