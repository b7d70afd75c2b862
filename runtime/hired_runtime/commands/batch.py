"""hired-edge batch: answer a file of requests, many rows at once."""

from __future__ import annotations

import argparse
import dataclasses

from hired_runtime.batch.progress import shown
from hired_runtime.batch.runner import MOST_ROWS, answer_file
from hired_runtime.commands import options

help = "answer a file of requests; goes on where it was stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("requests", metavar="REQUESTS", help="JSON lines: {id, image, prompt}; image: a path, a list")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="JSON lines: {id, text, finish_reason, usage} or {id, error}",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help=f"rows at once (default: as exported, at most {MOST_ROWS})"
    )
    options.add_request(parser)
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier run has answered")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object, the last line")


def run(args: argparse.Namespace) -> None:
    asked = options.request_options(args)
    for name in ("batch", "threads"):
        options.positive(f"--{name}", getattr(args, name))
    with shown() as show:
        result = answer_file(
            args.bundle,
            args.requests,
            args.output,
            asked,
            batch=args.batch,
            threads=args.threads,
            backend=args.backend,
            restart=args.restart,
            show=show,
            on_bytes=options.verification_bar(args.bundle),
        )
    if args.json:
        options.print_json(dataclasses.asdict(result))
        return
    speed = "" if result.rows_per_second is None else f", {result.rows_per_second:.1f} a second"
    print(f"{args.output}: {result.answers} answers, {result.errors} errors ({result.asked_now} rows asked now{speed})")
