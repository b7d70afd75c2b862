"""A comparison of tiny models on the CPU, in this process, for the tests of `benchmarks`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.comparison import Plan
from benchmarks.job import Job
from benchmarks.shapes import Files, Shape
from hired_runtime.profiling.measuring import Job as Asked
from tests.host.bundles import Exported
from tests.host.reference import picture

BUDGETS = ("100%", "40%", "20%")
PROMPT = "What is shown in this picture?"
NEW_TOKENS = 12


def here(function: Callable[..., Any], argument: Any, show: Callable[[str], None]) -> Any:
    """A `Call` in this process: its modules are imported already."""
    return function(argument, show)


def quiet(told: object) -> None:
    """Nothing is shown."""


def plan_of(exported: Exported, name: str, work: Path, **changes: Any) -> Plan:
    """A plan whose files are there: a checkpoint and its bundle, made for other tests."""
    config = json.loads((exported.checkpoint / "config.json").read_text())
    files = Files(work, Shape(name, config), 0)
    files.folder.mkdir(parents=True)
    files.checkpoint.symlink_to(exported.checkpoint)
    files.bundle("cpu", "fp32").symlink_to(exported.bundle)
    picture(150, 60, seed=3).resize((112, 112)).save(files.picture)
    settings: dict[str, Any] = {"budgets": BUDGETS, "batches": (1, 2), "precisions": ("fp32",)}
    counts = {"new_tokens": NEW_TOKENS, "warmup": 0, "iterations": 2, "restart": False}
    return Plan(**{"files": files, "device": "cpu", **settings, **counts, **changes})


def job(plan: Plan, budget: str = "100%", batch: int = 1) -> Job:
    asked = Asked(
        bundle=str(plan.bundle("fp32")),
        budget=budget,
        prompt=PROMPT,
        images=(str(plan.files.picture),),
        policy="hired",
        alpha="0.5",
        newlines=None,
        batch=batch,
        new_tokens=NEW_TOKENS,
        threads=1,
        backend=None,
        warmup=0,
        iterations=1,
    )
    return Job(asked, str(plan.files.checkpoint), "cpu")
