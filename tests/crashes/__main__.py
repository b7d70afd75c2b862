"""python -m tests.crashes: commands that are killed, or find the disk full; the tables, and the page's figures."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from benchmarks.figures import put
from tests.crashes import full_disk, page
from tests.crashes.cases import CASES, NOTHING, OLD
from tests.crashes.processes import Launcher, Moment
from tests.crashes.trials import CrashError, Scene

WEIGHTS = {"export": 10, "build": 3, "eval": 7, "batch": 2, "sign": 2, "pack": 2, "unpack": 2}
"""Shares of the kills; a build takes longest. Of those that replace a result, half go to each state."""
MAIN = ("export", "build", "eval")
COLD = 12
"""Of so many exports that are killed at a step, one is the command by itself, and not from the warm process."""
Trial = Callable[[], str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--kills", type=int, default=200, help="of export, build and eval; others more (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk-full", action="store_true", help="fill the disk before each step instead of killing")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of --disk-full: only each N-th step")
    parser.add_argument("--page", action="store_true", help="write the table into docs/reliability.md")
    asked = parser.parse_args()
    names = asked.commands or list(CASES)
    if not set(names) <= set(CASES):
        parser.error(f"commands are: {', '.join(CASES)}")
    if asked.disk_full:
        full_disk.with_own_mounts()
    began, rows, broken, how = time.monotonic(), list[page.Row](), list[str](), ""
    for name in names:
        with full_disk.disk() as (disk, ballast), tempfile.TemporaryDirectory(prefix="hired-edge-crashes-") as base:
            how = "a disk that fills (tmpfs)" if ballast else "a limit on files"
            for row, trials in scenes(name, asked, Path(base), disk, ballast):
                rows.append(row)
                broken += [f"{name} from {row.start}: {error}" for error in carried_out(row, trials)]
    moments = "moments" if asked.disk_full else "kills"
    table = page.table(rows, moments)
    print(table, *broken, sep="\n")
    minutes, count = (time.monotonic() - began) / 60, sum(row.found.total() for row in rows)
    means = f", with {how}" if asked.disk_full else ""
    print(f"{count} {moments} in {minutes:.0f} minutes{means}; {len(broken)} broke something")
    if asked.page and not broken:
        what = (
            f" --disk-full --every {asked.every}" if asked.disk_full else f" --kills {asked.kills} --seed {asked.seed}"
        )
        command = " ".join(["python -m tests.crashes", *asked.commands]) + what
        took = f"`{command}`{means} ({minutes:.0f} minutes on two cores that had other work):"
        put(page.PAGE, "disk full" if asked.disk_full else "crashes", page.framed(f"{took}\n\n{table}"))
    return min(len(broken), 1)


def scenes(
    name: str, asked: argparse.Namespace, base: Path, disk: Path, ballast: Path | None
) -> Iterable[tuple[page.Row, list[Trial]]]:
    """A command from each state that it may start from, and what is to be tried."""
    case, draw = CASES[name], random.Random(f"{name} {asked.seed}")
    starts = [NOTHING] if case.old is None else [NOTHING, OLD]
    kills = page.shares(asked.kills, {each: WEIGHTS[each] for each in MAIN})
    count = kills.get(name, -(-kills["eval"] * WEIGHTS[name] // WEIGHTS["eval"]))
    with Launcher(base) as launcher:
        inputs = base / "inputs"
        inputs.mkdir()
        case.inputs(launcher, inputs)
        for number, start in enumerate(starts):
            if asked.disk_full:
                scene = Scene(launcher, case, start, base / str(number), inputs, disk)
                yield page.Row(name, start), fillings(scene, asked.every, ballast)
            else:
                scene = Scene(launcher, case, start, base / str(number), inputs)
                yield page.Row(name, start), killings(scene, -(-count // len(starts)), draw)


def killings(scene: Scene, count: int, draw: random.Random) -> list[Trial]:
    def trial(number: int, moment: Moment) -> Trial:
        return lambda: scene.trial(moment, warm=moment.step is None or number % COLD != 0)

    return [trial(number, moment) for number, moment in enumerate(scene.moments(count, draw))]


def fillings(scene: Scene, every: int, ballast: Path | None) -> list[Trial]:
    def trial(number: int, step: int) -> Trial:
        return lambda: scene.disk_full(step, full_disk.LEFT[number % len(full_disk.LEFT)], ballast)

    return [trial(number, step) for number, step in enumerate(range(1, scene.usual.steps + 1, every))]


def carried_out(row: page.Row, trials: list[Trial]) -> list[str]:
    """Fills the row; returns what was found that must not be."""
    broken = []
    for trial in tqdm(trials, f"{row.command} from {row.start}"):
        try:
            row.found[trial()] += 1
            row.finished += 1
        except CrashError as error:
            broken.append(str(error))
            tqdm.write(broken[-1], file=sys.stderr)
    return broken


if __name__ == "__main__":
    sys.exit(main())
