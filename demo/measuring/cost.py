"""What costs time and memory on this machine: `hired-edge profile` of the demonstration model, and every policy."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import policies
from demo.run import NUMBER, SEED
from demo.scenes.compose import compose
from demo.scenes.draw import encode
from hired_runtime import profiling
from hired_runtime.profiling import report
from hired_runtime.whole import whole

BUDGETS = ("100%", "40%", "20%", "10%", "5%")
ROUNDS = 15


def write(bundle: Path, accuracy: Path) -> None:
    """Profiles every budget, each in a process of its own, into cost/, and times every policy, into speed.json."""
    folder = accuracy / "cost"
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "scene.jpg"  # `make demo`'s, which takes the most tokens that the model has
    picture.write_bytes(encode(compose(SEED, NUMBER)))
    plan = profiling.Plan(
        bundle=bundle,
        images=(str(picture),),
        budgets=BUDGETS,
        prompt="How many cards are there?",
        new_tokens=2,
        warmup=5,
        iterations=40,
    )
    report.write(profiling.profile(plan), folder)
    picture.unlink()
    with whole(accuracy / "speed.json") as partial:
        partial.write_text(json.dumps(policies.measure(ROUNDS), indent=1) + "\n", encoding="utf-8")
