"""hired-edge profile: how fast and how large a bundle is at several budgets, on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hired_edge import strict
from hired_edge.errors import InputError
from hired_runtime import profiling
from hired_runtime.commands import options
from hired_runtime.profiling import progress, report, schema, table

help = "measure speed and memory of a bundle at several budgets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a folder that hired-edge export wrote")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="a picture; may be repeated")
    parser.add_argument("--prompt", default=profiling.PROMPT, help=f"the question (default: {profiling.PROMPT})")
    parser.add_argument(
        "--budgets",
        default="100%,40%,20%",
        metavar="B,...",
        help="each in a process of its own (default: 100%%,40%%,20%%)",
    )
    options.add_signature(parser)
    options.add_policy(parser)
    options.add_backend(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help=f"made in every answer (default: {profiling.NEW_TOKENS})"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="answers at once (default: 1)")
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="requests before timing (default: 3)")
    parser.add_argument("--iterations", type=int, default=10, metavar="N", help="requests timed (default: 10)")
    parser.add_argument("--power", action="store_true", help="a Jetson's power and energy, by tegrastats")
    parser.add_argument("-o", "--output", metavar="DIR", help="where profile.json and profile.html go")
    parser.add_argument("--render", metavar="FILE", help="draw profile.html from a profile.json; nothing is measured")
    parser.add_argument("--json", action="store_true", help="print the profile as one JSON object, the last line")


def run(args: argparse.Namespace) -> None:
    if args.render is not None:
        render(args)
        return
    if args.bundle is None or args.output is None:
        missing = "BUNDLE" if args.bundle is None else "-o DIR"
        raise InputError(
            f"no {missing}", expected="hired-edge profile BUNDLE --image FILE -o DIR", fix=f"add {missing}"
        )
    plan = profiling.Plan(
        bundle=Path(args.bundle),
        images=tuple(args.image),
        budgets=tuple(options.listed(args.budgets)),
        policy=args.policy,
        alpha=args.alpha,
        newlines=args.newlines,
        prompt=args.prompt,
        new_tokens=args.max_new_tokens,
        batch=args.batch,
        threads=args.threads,
        backend=args.backend,
        warmup=args.warmup,
        iterations=args.iterations,
        power=args.power,
        public_keys=options.public_keys(args),
    )
    folder = Path(args.output)
    report.check_folder(folder)
    with progress.line() as show:
        result = profiling.profile(plan, lambda budget, step: show(f"{budget}: {step}"))
    drawn = report.write(result, folder)
    if not drawn:
        print(
            f"hired-edge: {folder / report.PAGE} is not written, since matplotlib is not installed here; where it is, "
            f"run: hired-edge profile --render {folder / report.JSON}",
            file=sys.stderr,
        )
    if args.json:
        options.print_json(strict.to_json(result))
    else:
        print(table.text(result))


def render(args: argparse.Namespace) -> None:
    """Draws the page of an earlier profile."""
    if args.bundle is not None or args.image:
        raise InputError(
            "--render with a bundle or a picture",
            expected="a profile.json alone: nothing is measured",
            fix="leave the others out",
        )
    source = Path(args.render)
    result = schema.read(source)
    page = report.render(result, source.parent if args.output is None else Path(args.output))
    if args.json:
        options.print_json({"page": str(page)})
    else:
        print(page)
