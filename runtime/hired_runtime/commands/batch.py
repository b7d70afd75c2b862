"""hired-edge batch: answer a file of requests, many rows at once."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from hired_edge.errors import InputError
from hired_runtime.batch.progress import shown
from hired_runtime.batch.runner import MOST_ROWS, answer_file
from hired_runtime.commands import options
from hired_runtime.ray_batch.parquet_requests import is_parquet

help = "answer a file of requests; goes on where it was stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("requests", metavar="REQUESTS", help="JSON lines: {id, image, prompt}; image: a path, a list")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="JSON lines: {id, text, finish_reason, usage} or {id, error}; with --ray a folder of Parquet",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help=f"rows at once (default: as exported, at most {MOST_ROWS})"
    )
    options.add_request(parser)
    ray = parser.add_argument_group("many machines (the `ray` extra, docs/scaling.md)")
    ray.add_argument(
        "--ray", metavar="ADDRESS", help="a Ray cluster: local (started here), auto, HOST:PORT (default: this process)"
    )
    ray.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one a GPU, or one for each --threads CPUs)"
    )
    ray.add_argument(
        "--part-rows", type=int, metavar="N", help="rows of a file of the output (default: a thousandth, 32 to 1,024)"
    )
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier run has answered")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object, the last line")


def run(args: argparse.Namespace) -> None:
    asked = options.request_options(args)
    for name in ("batch", "threads", "workers", "part_rows"):
        options.positive(f"--{name.replace('_', '-')}", getattr(args, name))
    keys = options.public_keys(args)
    common: dict[str, Any] = {
        "batch": args.batch,
        "threads": args.threads,
        "backend": args.backend,
        "restart": args.restart,
        "public_keys": keys,
    }
    _check_ray(args)
    with shown() as show:
        if args.ray is None:
            bar = options.verification_bar(args.bundle, keys)
            result = answer_file(args.bundle, args.requests, args.output, asked, **common, show=show, on_bytes=bar)
        else:
            from hired_runtime.ray_batch.runner import answer_on_cluster

            many = {"address": args.ray, "workers": args.workers, "part_rows": args.part_rows}
            result = answer_on_cluster(args.bundle, args.requests, args.output, asked, **many, **common, show=show)
    if args.json:
        options.print_json(dataclasses.asdict(result))
        return
    speed = "" if result.rows_per_second is None else f", {result.rows_per_second:.1f} a second"
    print(f"{args.output}: {result.answers} answers, {result.errors} errors ({result.asked_now} rows asked now{speed})")


def _check_ray(args: argparse.Namespace) -> None:
    """Refuses what means something with --ray alone."""
    if args.ray is not None:
        return
    given = [f"--{name.replace('_', '-')}" for name in ("workers", "part_rows") if getattr(args, name) is not None]
    if is_parquet(Path(args.requests)):
        given.append(args.requests)
    if given:
        raise InputError(f"{given[0]} without --ray", expected="both, or neither", fix="add --ray local")
