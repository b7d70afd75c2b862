"""`python -m demo.measuring`: answers everything that `runs.py` lists, writes the reports, then the pages.

Pictures, exported bundles and answers are kept below demo/output/accuracy, in folders named after the code, the
checkpoint and the options that make them: a run that was stopped goes on, and nothing that others made is taken.
Reports go to demo/accuracy, tables and plots into the pages.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import demo.scenes
import hired_edge
import hired_export
import hired_runtime
from demo import tables
from demo.measuring import across, cost, plots
from demo.measuring.runs import BUNDLES, DATA, RUNS, Run
from demo.reports import ACCURACY
from demo.scenes.__main__ import write as write_scenes
from demo.training.bundle import BUNDLE, CHECKPOINT, LIMITS, make
from hired_export.families import AttentionChoice
from hired_runtime.evaluation import Evaluation, evaluate
from hired_runtime.evaluation.progress import bar
from hired_runtime.evaluation.report import write

OUTPUT = ACCURACY.parent / "output/accuracy"
SILENT = (
    *("board", "commands", "lmms_eval", "metrics", "planner", "profiling", "trt"),
    *("cli.py", "drawing.py", "engine_check.py", "engine_record.py", "golden.py"),
    *("files.py", "intervals.py", "plots.py", "progress.py", "report.py", "result.py"),
)
"""Packages and modules that no answer depends on: scores and intervals are worked out anew each time."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.measuring", description=__doc__)
    names = [run.name for run in RUNS]
    parser.add_argument("--only", metavar="RUN,...", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--no-cost", action="store_true", help="measure no time: the machine is not idle")
    parser.add_argument("--pages", action="store_true", help="measure nothing: write the pages from demo/accuracy")
    args = parser.parse_args()
    if not args.pages:
        chosen = names if args.only is None else args.only.split(",")
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            parser.error(f"no run {unknown[0]!r}; expected {', '.join(names)}")
        results = {run.name: measure(run) for run in RUNS if run.name in chosen}
        across.write(results, ACCURACY)
        if not args.no_cost:
            cost.write(BUNDLE, ACCURACY)
    plots.draw_all(ACCURACY)
    tables.main()


@cache
def work() -> Path:
    """Where this code's pictures, bundles and answers are: by its source, comments and docstrings apart."""
    digest = hashlib.sha256()
    for name, path in _sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                body[:] = [each for each in body if not _is_text(each)]
        digest.update(name.encode() + ast.dump(tree).encode())
    return OUTPUT / digest.hexdigest()[:16]


def _sources() -> Iterable[tuple[str, Path]]:
    """Modules, and what they are called inside their package."""
    for package in (hired_edge, hired_runtime, hired_export, demo.scenes):
        root = Path(package.__file__ or "").parent
        for path in sorted(root.rglob("*.py")):
            if set(path.relative_to(root).parts).isdisjoint(SILENT):
                yield f"{package.__name__}/{path.relative_to(root)}", path


def _digest(*facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, of whatever it stands behind."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def measure(run: Run) -> Evaluation:
    """Answers what is not answered yet, and writes the report."""
    start = time.monotonic()
    print(f"{run.name}: {len(run.settings)} settings", file=sys.stderr, flush=True)
    with bar() as on_picture:
        result = evaluate(
            bundle(run.bundle), questions(run.data), run.settings, report=work() / run.name, on_picture=on_picture
        )
    (ACCURACY / run.name).mkdir(parents=True, exist_ok=True)
    write(result, ACCURACY / run.name)
    print(f"{run.name}: {result.facts['answers_made_now']} answers in {time.monotonic() - start:.0f} s", flush=True)
    return result


def questions(name: str) -> Path:
    """The data set of that name, drawn if it is not there."""
    data = DATA[name]
    folder = work() / "questions" / f"{name}-{_digest(data)}"
    if not folder.exists():
        write_scenes(folder, data.seed, data.count, variant=data.variant, per_task=data.per_task)
    return folder


def bundle(name: str) -> Path:
    """The bundle of that name, exported if it is not there."""
    options = BUNDLES[name]
    if options is None:
        return BUNDLE
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(CHECKPOINT.iterdir())]
    folder = work() / "bundles" / f"{name}-{_digest(options, LIMITS, files)}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        others = {key: value for key, value in options.items() if key != "attention"}
        make(folder, attention=AttentionChoice(**options.get("attention", {})), **others)
    return folder


if __name__ == "__main__":
    main()
