"""What is measured: data sets, bundles, and which settings are answered on which of them. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hired_runtime.evaluation import Setting, settings_grid


@dataclass(frozen=True)
class Data:
    """A data set of `demo.scenes`; seeds from 1000 on were not seen in training.

    Args:
        seed: of its pictures.
        count: pictures of eight questions each, or
        per_task: questions of each task, one of a task a picture.
        variant: kind of codes.
    """

    seed: int
    count: int = 0
    per_task: int | None = None
    variant: str = "trained"


@dataclass(frozen=True)
class Run:
    """A report, demo/accuracy/`name`.

    Args:
        data: a name in DATA.
        settings: what is answered.
        bundle: a name in BUNDLES.
    """

    name: str
    data: str
    settings: Sequence[Setting]
    bundle: str = "demo"


DATA: Mapping[str, Data] = {
    "thousand": Data(1002, per_task=1000),
    "three-hundred": Data(1003, per_task=300),
    "held-out": Data(1000, 200),
    "regression": Data(1001, 40),
    **{variant: Data(1000, 100, variant=variant) for variant in ("held-out-fonts", "long", "letters")},
}

MIDDLE_LAYER = 2
"""Of the tower's five that LLaVA reads: the paper's layer 11 of 24."""
HEADS = 5

BUNDLES: Mapping[str, dict[str, Any] | None] = {
    "demo": None,  # the committed one
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4", "block_size": 32, "quantisation": "rtn"},
    "keys": {"attention": {"keys": True}},
    "middle": {"attention": {"selection_layer": MIDDLE_LAYER}},
    **{f"head-{head}": {"attention": {"heads": str(head)}} for head in range(HEADS)},
}
"""Exports of demo/checkpoint, by what differs from demo/bundle; `attention` has the fields of `AttentionChoice`."""

LONGEST = "336"
"""Visual positions of the longest whole sequence: a budget, but none that cuts."""
BUDGETS = ("40%", "20%", "10%", "5%")
PAPER = ("hired", "hired-placed", "hired-2024", "top-cls", "uniform", "random")
OTHERS = ("scope", "vispruner", "divprune", "holov", "spatial-pooling")
PLACED = ("hired", "top-cls", "scope", "divprune")
TABLE_5 = ("hired", "top-cls", "hired-even", "hired-allocated-by-last", "hired-dropped-by-first")
CHANGES = ("hired", "hired-placed", "hired-covering", "hired-merging")
ALPHAS = tuple(f"{tenth / 10:g}" for tenth in range(11))
FULL = [Setting("full")]


def _grid(policies: Sequence[str], budgets: Sequence[str] = BUDGETS, **more: Any) -> list[Setting]:
    return [*FULL, *settings_grid(policies, budgets, more.pop("alphas", ["0.5"]), **more)]


RUNS: Sequence[Run] = (
    Run("regression", "regression", _grid(("hired", "random"), ["20%"])),
    Run("policies", "thousand", _grid(PAPER)),
    Run("others", "thousand", _grid(("hired", *OTHERS))),
    Run("positions", "three-hundred", _grid(PLACED, positions=["compact", "original"])),
    Run("changes", "three-hundred", _grid(CHANGES)),
    Run(
        "newlines",
        "three-hundred",
        # 5 % of a picture are fewer than its rows: `all-rows` refuses that.
        [*_grid(["hired"], newlines=[None, "none"]), *_grid(["hired"], BUDGETS[:3], newlines=["all-rows"])[1:]],
    ),
    Run("alpha", "three-hundred", _grid(["hired"], ["40%", "20%"], alphas=ALPHAS)),
    Run("alpha-placed", "three-hundred", _grid(["hired-placed"], ["40%", "20%"], alphas=ALPHAS)),
    Run("allocation", "three-hundred", _grid(TABLE_5, BUDGETS[:3])),
    Run("middle", "three-hundred", _grid(["hired"], BUDGETS[:3]), "middle"),
    *(Run(f"head-{head}", "three-hundred", _grid(["hired"], ["20%"]), f"head-{head}") for head in range(HEADS)),
    Run("base", "three-hundred", _grid(["full", "hired"], ["100%", "40%", "20%"], partitions="base")),
    # A budget of the longest whole sequence has room for what they choose to keep: less is refused.
    Run("prumerge", "three-hundred", [*_grid(["hired"]), *_grid(("prumerge", "prumerge+"), [LONGEST])[1:]], "keys"),
    *(
        Run(name, name, _grid(["hired"], ["20%"]))
        for name in ("held-out-fonts", "long", "letters")
    ),
    *(Run(name, "held-out", _grid(["hired"], BUDGETS[:3]), "demo" if name == "fp32" else name)
      for name in ("fp32", "int8", "int4")),
)  # fmt: skip
