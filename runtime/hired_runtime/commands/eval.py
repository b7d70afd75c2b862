"""hired-edge eval: answer a data set at several policies and budgets, and report accuracy with intervals."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from hired_edge.errors import MissingExtraError
from hired_edge.packing import NEWLINES
from hired_edge.policies import POLICIES
from hired_edge.selection import PARTITIONS
from hired_runtime import backends
from hired_runtime.commands import options
from hired_runtime.evaluation import METRICS, Evaluation, evaluate, settings_grid
from hired_runtime.evaluation.progress import bar
from hired_runtime.evaluation.report import ALL_TASKS, accuracies, sections, write
from hired_runtime.positions import POSITIONS

help = "answer a data set at several budgets; report accuracy"

_SHOWN_BAD_ROWS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("dataset", metavar="DATASET", help="a folder with questions.jsonl and its pictures")
    parser.add_argument("--report", required=True, metavar="DIR", help="where the report goes; a second run goes on")
    names = ", ".join(POLICIES)
    parser.add_argument("--policies", default="full,hired", metavar="P,...", help=f"of {names} (default: full,hired)")
    parser.add_argument(
        "--budgets", default="100%,40%,20%,10%,5%", metavar="B,...", help="(default: 100%%,40%%,20%%,10%%,5%%)"
    )
    parser.add_argument("--alpha", default="0.5", metavar="A,...", help="the whole picture's shares (default: 0.5)")
    names = ", ".join(NEWLINES)
    parser.add_argument(
        "--newlines", metavar="W,...", help=f"newline policies, of {names} (default: the policy's or family's)"
    )
    parser.add_argument(
        "--positions", metavar="X,...", help=f"of {', '.join(POSITIONS)} (default: the policy's, mostly compact)"
    )
    parser.add_argument(
        "--partitions", default="all", choices=PARTITIONS, help="base: without the high-resolution tiles (default: all)"
    )
    parser.add_argument(
        "--metric",
        default="exact",
        choices=list(METRICS),
        help="exact match, ANLS (DocVQA), VQA accuracy (ten answers a question), relaxed accuracy (ChartQA), POPE "
        "(default: exact)",
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of an answer (default: as exported)")
    parser.add_argument("--batch", type=int, metavar="N", help="questions at once (default: 8, or as exported)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: its own choice)")
    options.add_backend(parser)
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an earlier run has answered, and its report"
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object, the last line")


def run(args: argparse.Namespace) -> None:
    settings = settings_grid(
        options.listed(args.policies),
        options.listed(args.budgets),
        options.listed(args.alpha),
        [None] if args.newlines is None else options.listed(args.newlines),
        [None] if args.positions is None else options.listed(args.positions),
        args.partitions,
    )
    for name in ("max_new_tokens", "batch", "threads"):
        options.positive(f"--{name.replace('_', '-')}", getattr(args, name))
    check_extra()
    backend = backends.choose(args.bundle, args.backend)
    folder, keys = Path(args.report), options.public_keys(args)
    with bar() as on_picture:
        result = evaluate(
            args.bundle,
            args.dataset,
            settings,
            metric=args.metric,
            max_new_tokens=args.max_new_tokens,
            batch=args.batch,
            threads=args.threads,
            backend=backend,
            report=folder,
            restart=args.restart,
            on_picture=on_picture,
            public_keys=keys,
            on_bytes=options.verification_bar(args.bundle, keys),
        )
    content = write(result, folder)
    print_bad_rows(result)
    if args.json:
        options.print_json(content)
    else:
        print(table(result))


def check_extra() -> None:
    """Raises MissingExtraError if the report could not be made in the end."""
    for module in ("matplotlib", "tqdm"):
        if find_spec(module) is None:
            raise MissingExtraError(
                f"no module named {module}", expected="the 'eval' extra", fix="run: pip install 'hired-edge[eval]'"
            )


def table(result: Evaluation) -> str:
    """Accuracies over all tasks, for a terminal."""
    task = sections(result)[-1]
    rows = accuracies(result, task)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    facts = result.facts
    heading = f"{ALL_TASKS if task is None else task}: accuracy in %, 95 % interval"
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    made = f"{facts['answers_made_now']} of {facts['answers']} answers made now"
    asked = f"{facts['questions']} questions about {facts['pictures']} pictures, {made}"
    return "\n".join([f"{heading} ({asked})", *lines])


def print_bad_rows(result: Evaluation) -> None:
    """On stderr: how many, and the first of them."""
    if not result.bad_rows:
        return
    print(f"{len(result.bad_rows)} bad rows, not asked:", file=sys.stderr)
    for row in result.bad_rows[:_SHOWN_BAD_ROWS]:
        print(f"  line {row.line}: {row.reason}", file=sys.stderr)
    if len(result.bad_rows) > _SHOWN_BAD_ROWS:
        print(f"  and {len(result.bad_rows) - _SHOWN_BAD_ROWS} more, in the report", file=sys.stderr)
