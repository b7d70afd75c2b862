"""A stage of training: numbered steps, a log that anyone can plot, and a state to go on from after an interruption."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from demo.training.architecture import DEVICE
from demo.training.optimiser import Optimiser

EVERY = 100  # steps between two measures, each of which is saved
LOGS = Path(__file__).resolve().parent.parent / "logs"


def run(
    name: str,
    folder: Path,
    steps: int,
    modules: dict[str, nn.Module],
    optimiser: Optimiser,
    step: Callable[[int], dict[str, float]],
    measure: Callable[[], dict[str, float]],
) -> None:
    """Runs steps 0 to `steps`, or from where an earlier run was interrupted.

    `folder` gets `NAME.pt` (weights and optimiser); `LOGS` gets `NAME.jsonl`: the machine, then a line a measure.

    Args:
        step: makes the gradients of step i, seeded by i alone, and returns losses.
        measure: figures on held-out scenes.
    """
    state_file, log_file = folder / f"{name}.pt", LOGS / f"{name}.jsonl"
    start, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=DEVICE, weights_only=True)
        start, seconds = state["step"], state["seconds"]
        for key, module in modules.items():
            module.load_state_dict(state[key])
        optimiser.load_state_dict(state["optimiser"])
    _go_on_logging(log_file, start)
    began = time.time() - seconds
    sums: Counter[str] = Counter()
    for number in tqdm(range(start, steps), desc=name, initial=start, total=steps, disable=None):
        sums.update(step(number))
        sums.update({"gradient": optimiser.step(number)})
        done = number + 1
        if done % EVERY == 0 or done == steps:
            means = {key: round(value / (done % EVERY or EVERY), 4) for key, value in sums.items()}
            figures = {key: round(value, 4) for key, value in measure().items()}
            line = {"step": done, "seconds": round(time.time() - began), **means, "held_out": figures}
            _append(log_file, line)
            if not sys.stderr.isatty():
                print(name, json.dumps(line), flush=True)
            sums.clear()
            state = {key: module.state_dict() for key, module in modules.items()}
            state |= {"optimiser": optimiser.state_dict(), "step": done, "seconds": time.time() - began}
            partial = state_file.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(state_file)


def _go_on_logging(file: Path, start: int) -> None:
    """Drops what was logged after the state that is gone on from; a new log begins with the machine."""
    LOGS.mkdir(exist_ok=True)
    if start:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if json.loads(line).get("step", 0) <= start), encoding="utf-8")
    else:
        file.write_text("", encoding="utf-8")
        machine = {"processor": platform.machine(), "device": str(DEVICE), "threads": torch.get_num_threads()}
        _append(file, {**machine, "torch": str(torch.__version__)})


def _append(file: Path, line: dict) -> None:
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
