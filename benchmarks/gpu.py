"""`python -m benchmarks.gpu`: this runtime beside PyTorch on an NVIDIA GPU, written to docs/gpu.md.

The page's figures go to docs/gpu-figures.json beside it, and the last line of stdout is the same JSON.

Exit status 2, in one line, where there is no GPU: the page then stays as it is. `--shape tiny --device cpu --out FILE`
tries the whole of it out where there is none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from benchmarks import page
from benchmarks.command import guarded
from benchmarks.comparison import Call, Plan, compare, in_child
from benchmarks.results import Device, Results, Row
from benchmarks.shapes import BATCHES, BUDGETS, NEW_TOKENS, SHAPES, Files, shape_named
from hired_edge import strict
from hired_edge.budget import parse_budget
from hired_edge.cli import Parser
from hired_edge.errors import InputError
from hired_edge.manifest import Precision
from hired_runtime.commands.options import listed
from hired_runtime.profiling import progress
from hired_runtime.whole import whole

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/gpu.md"
PRECISIONS: dict[Device, tuple[Precision, ...]] = {"cuda": ("fp16", "int4"), "cpu": ("fp32", "int4")}
"""Of our runtime. The first is also PyTorch's."""


def main(argv: Sequence[str] | None = None, call: Call = in_child) -> int:
    """Runs the comparison; 0, 2 for what a user can mend, 130 for Ctrl-C. `call` is `compare`'s."""
    kept = "what was measured is kept: run it again to go on"
    return guarded("benchmarks.gpu", lambda: _run(_parser().parse_args(argv), call), kept)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.gpu", description="this runtime beside PyTorch on an NVIDIA GPU")
    parser.add_argument("--shape", default="llava-v1.6-vicuna-7b", metavar="NAME", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu is for trying it out")
    parser.add_argument("--budgets", default=",".join(BUDGETS), metavar="P%[,...]", help="(default: 100%%,40%%,20%%)")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), metavar="N[,...]", help="(default: 1,2,4)")
    parser.add_argument("--precisions", metavar="P[,...]", help="of our runtime (default: fp16,int4; cpu: fp32,int4)")
    parser.add_argument("--new-tokens", type=int, default=32, metavar="N", help="of an answer, 2 or more (default: 32)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="requests before timing (default: 2)")
    parser.add_argument("--iterations", type=int, default=5, metavar="N", help="requests timed (default: 5)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights (default: 0)")
    parser.add_argument(
        "--work",
        default=str(ROOT / "build/gpu"),
        metavar="DIR",
        help="files that are made once (35 GB; 90 with engines)",
    )
    parser.add_argument("--out", metavar="FILE", help="the page; its figures go beside it (default: docs/gpu.md)")
    parser.add_argument("--restart", action="store_true", help="measure again what was measured before")
    parser.add_argument("--without-gpu", action="store_true", help="write the page that says that nothing was measured")
    return parser


def _run(args: argparse.Namespace, call: Call) -> int:
    if args.device == "cpu" and args.out is None:
        raise InputError("--device cpu without --out", expected="a page of its own", fix="pass --out FILE")
    out = PAGE if args.out is None else Path(args.out)
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder", expected="the one that the page goes to", fix="make it first")
    if args.without_gpu:
        figures_of(out).unlink(missing_ok=True)
        with whole(out) as partial:
            partial.write_text(page.without_gpu(), encoding="utf-8")
        print(json.dumps({"page": out.name, "measured": False}))
        return 0
    plan = _plan(args)
    with progress.line() as show:

        def on_row(row: Row) -> None:
            show("")
            print(page.line(row), flush=True)

        results = compare(plan, show, on_row, call)
    write(results, out)
    print(json.dumps(strict.to_json(results), allow_nan=False))
    return 0


def figures_of(out: Path) -> Path:
    """Where a page's figures lie."""
    return out.with_name(f"{out.stem}-figures.json")


def write(results: Results, out: Path) -> None:
    """The page and its figures beside it: both, or neither."""
    with whole(figures_of(out)) as numbers, whole(out) as partial:
        numbers.write_text(strict.dumps(results), encoding="utf-8")
        partial.write_text(page.text(results), encoding="utf-8")


def _plan(args: argparse.Namespace) -> Plan:
    budgets = [parse_budget(text) for text in listed(args.budgets)]
    for budget in budgets:
        if budget.percent is None:
            raise InputError(f"--budgets {args.budgets}", expected="percentages", fix="write it as 100%,20%")
    precisions = PRECISIONS[args.device] if args.precisions is None else tuple(listed(args.precisions))
    for precision in precisions:
        if precision not in PRECISIONS[args.device]:
            expected = " or ".join(PRECISIONS[args.device])
            raise InputError(f"--precisions {precision}", expected=expected, fix="choose of them")
    return Plan(
        files=Files(Path(args.work), shape_named(args.shape), args.seed),
        device=args.device,
        budgets=tuple(dict.fromkeys(map(str, budgets))),
        batches=tuple(dict.fromkeys(_number("--batches", text, 1, max(BATCHES)) for text in listed(args.batches))),
        precisions=cast("tuple[Precision, ...]", precisions),
        new_tokens=_number("--new-tokens", args.new_tokens, 2, NEW_TOKENS),
        warmup=_number("--warmup", args.warmup, 0, 1000),
        iterations=_number("--iterations", args.iterations, 1, 1000),
        restart=args.restart,
    )


def _number(name: str, value: str | int, least: int, most: int) -> int:
    if not str(value).isdecimal() or not least <= int(value) <= most:
        raise InputError(f"{name} {value}", expected=f"{least} to {most}", fix=f"pass another {name}")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
