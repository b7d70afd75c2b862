"""`python -m tests.fuzz [SURFACE...]`: hostile inputs for every reader, each surface in a process of its own.

Ends at the first finding with status 1: the input is left in a file, and the command that repeats it is printed. A
finding is anything that comes out but the project's own errors in one line; a process that dies; an input that takes
over a second of processor time, three times; one that takes more memory than its surface may; memory that grows.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from benchmarks.figures import put
from hired_runtime.profiling.machine import machine
from tests.fuzz.page import NAME, PAGE, figures, row, table
from tests.fuzz.slot import Figures
from tests.fuzz.surface import ROOT, names
from tests.fuzz.watching import Outcome, kept, watched
from tests.fuzz.worker import ENGINES

FOUND = ROOT / "build/fuzz"


def main() -> int:
    args = _arguments()
    chosen, rows = args.surfaces or names(), dict[str, list[str]]()
    more = ["--inputs", str(args.inputs), "--seed", str(args.seed)]
    if args.input is not None:
        more += ["--input", str(args.input.resolve())]
    try:
        for name in chosen:
            outcome = watched(name, args.engine, more, lambda figures, name=name: _show(name, figures, args.inputs))
            _clear()
            if outcome.finding is not None:
                _report(outcome, args)
                return 1
            rows[name] = row(name, outcome.figures)
            print(f"{name}: {outcome.figures.inputs} inputs, no finding", flush=True)
    except KeyboardInterrupt:
        _clear()
        print("interrupted", file=sys.stderr)
        return 130
    print(table(list(rows.values())))
    if args.page:
        here = machine()
        again = f"python -m tests.fuzz --engine {args.engine} --inputs {args.inputs} --seed {args.seed} --page"
        above = f"{here.processor}, {here.cores} cores, shared with other work. By `{again}`."
        put(PAGE, NAME, figures(PAGE.read_text(encoding="utf-8"), rows, above))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("surfaces", nargs="*", metavar="SURFACE", help=f"{', '.join(names())} (default: all)")
    parser.add_argument("--inputs", type=int, default=100_000, metavar="N", help="of each (default: 100000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the same inputs again (default: 1)")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="(default: atheris)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="feed this to the one SURFACE, and nothing else")
    parser.add_argument("--page", action="store_true", help=f"write the table to {PAGE.relative_to(ROOT)} too")
    args = parser.parse_args()
    if args.inputs < 1 or args.seed < 0:
        parser.error("--inputs is 1 or more, --seed 0 or more")
    if args.input is not None:
        args.engine = "seeded"
        if len(args.surfaces) != 1 or not args.input.is_file():
            parser.error("--input is a file for one SURFACE")
    if args.engine == "atheris" and importlib.util.find_spec("atheris") is None:
        parser.error("no module named atheris; run: pip install -e '.[fuzz]' -c constraints.txt, or --engine seeded")
    for name in args.surfaces:
        if name not in names() and importlib.util.find_spec(name) is None:
            parser.error(f"no surface {name}; there are {', '.join(names())}")
    return args


def _show(name: str, found: Figures, inputs: int) -> None:
    """One line that is written over; in a log, nothing."""
    if sys.stderr.isatty():
        rate = found.inputs / max(1e-9, found.spent_ns / 1e9)
        words = f"{name}: {found.inputs} of {inputs}, {rate:.0f}/s, slowest {found.slowest_ns / 1e6:.1f} ms"
        print(f"\r{words:<78}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r" + " " * 78 + "\r", end="", file=sys.stderr, flush=True)


def _report(outcome: Outcome, args: argparse.Namespace) -> None:
    print(outcome.log, file=sys.stderr)
    after = f"after {outcome.figures.inputs} inputs of seed {args.seed}"
    print(f"{outcome.name}: {outcome.finding}, {after}", file=sys.stderr)
    path = kept(outcome, FOUND)
    if path is not None:
        print(f"again: python -m tests.fuzz {outcome.name} --input {path.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
