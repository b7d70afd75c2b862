"""`python -m benchmarks.cpu` (make bench): this runtime on a CPU beside llama.cpp and PyTorch.

It writes on top of docs/performance.md, and the last line of stdout is one JSON object with everything measured. What
the minutes are not enough for is left out, and named; so is a part that fails, or a peer that cannot be installed.
Files are made once, in build/cpu: 10 GB for two small depths of a 7B shape, or of any other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.command import Page, at_least_one, folder_of_its_own, guarded, where
from benchmarks.cpu import ceilings, page, peers
from benchmarks.cpu.files import Files, files, make, make_picture
from benchmarks.cpu.measuring import PROMPTS, Clock, Measuring
from benchmarks.cpu.results import LLAMA, TORCH, Run
from hired_edge import child, strict
from hired_edge.cli import Parser
from hired_edge.errors import HiredEdgeError, InputError
from hired_runtime.commands.options import listed
from hired_runtime.profiling import progress
from hired_runtime.profiling.machine import machine

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/performance.md"
PICTURE = ROOT / "demo/pictures/coffee.jpg"
PARTS = ("engines", "vision", "pytorch", "operators", "memory")
PEERS = (LLAMA, TORCH)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; 0, 2 for what a user can mend, 130 for Ctrl-C."""
    return guarded("benchmarks.cpu", lambda: _run(_parser().parse_args(argv)), "the page is as it was")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.cpu", description="this runtime on a CPU beside llama.cpp and PyTorch")
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="to be measured in (default: 30)")
    parser.add_argument("--shape", default="llava-v1.6-mistral-7b", metavar="NAME", help="of a LLaVA-NeXT model")
    parser.add_argument("--layers", default="1,3", metavar="N,N", help="of the text model, measured (default: 1,3)")
    parser.add_argument("--block-size", type=int, default=128, metavar="N", help="of int4 (default: 128)")
    parser.add_argument(
        "--vision-precision", choices=["fp32", "int8"], default="int8", help="of our tower (default: int8)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of every side (default: as many as cores)")
    parser.add_argument("--parts", default=",".join(PARTS), metavar="P[,...]", help=f"(default: {','.join(PARTS)})")
    parser.add_argument("--without", default="", metavar="PEER[,...]", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--work", default=str(ROOT / "build/cpu"), metavar="DIR", help="(default: build/cpu)")
    parser.add_argument("--peers", default=str(ROOT / ".venv-peers"), metavar="DIR", help="(default: .venv-peers)")
    parser.add_argument("--out", default=str(PAGE), metavar="FILE", help="the page (default: docs/performance.md)")
    return parser


def _run(args: argparse.Namespace) -> int:
    here, book = machine(), Page(Path(args.out), page.HEAD)
    threads = here.cores if args.threads is None else args.threads
    at_least_one("--threads", threads)
    at_least_one("--minutes", args.minutes)
    work = folder_of_its_own("--work", Path(args.work))
    made = files(work, args.shape, args.block_size, args.vision_precision)
    layers, without = _layers(args.layers, made), _of("--without", args.without, PEERS)
    parts = _of("--parts", args.parts, PARTS)
    for depth in layers:
        make(made, depth)
    make_picture(made, PICTURE)
    interpreter, trouble = peers.found(Path(args.peers), LLAMA in without)
    clock = Clock(args.minutes)
    clock.left_out += trouble
    with progress.line() as show:
        measuring = Measuring(made, layers, threads, clock, show, interpreter, TORCH not in without)
        steps = {
            "engines": measuring.engines,
            "vision": measuring.vision_side,
            "pytorch": measuring.pytorch_engine,
            "operators": measuring.where_time_goes,
            "memory": measuring.memory,
        }
        for part in PARTS:
            if part not in parts:
                clock.left_out.append(f"{part} (not asked for)")
                continue
            try:
                steps[part]()
            except HiredEdgeError as error:  # a process that died: what the others found is kept
                clock.left_out.append(f"{part} ({error.got})")
        show("the machine's ceilings")
        text = made.sizes.text
        product = (PROMPTS[0], text.hidden_size, text.intermediate_size)
        best = child.call(ceilings.measure, ceilings.Job(product, threads), died=_died)
    run = Run(
        written=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        command=_command(args, threads),
        minutes=args.minutes,
        shape=made.shape,
        depth=text.layers,
        layers=layers,
        block_size=made.block_size,
        vision=made.vision,
        where=where(here, threads, tuple(measuring.versions)),
        ceilings=best,
        series=tuple(measuring.series),
        policies=measuring.policies,
        shares=measuring.shares,
        peaks=tuple(measuring.peaks),
        left_out=tuple(clock.left_out),
    )
    print(page.section(run))
    print(json.dumps(strict.to_json(run), allow_nan=False), flush=True)
    book.add(page.section(run))
    return 0


def _layers(text: str, made: Files) -> tuple[int, int]:
    numbers = listed(text)
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise InputError(f"--layers {text}", expected="two numbers", fix="write it as 1,3")
    few, many = map(int, numbers)
    if not 1 <= few < many <= made.sizes.text.layers:
        raise InputError(
            f"--layers {text}", expected=f"two of 1 to {made.sizes.text.layers}, rising", fix="write it as 1,3"
        )
    return few, many


def _of(flag: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    asked = tuple(listed(text)) if text else ()
    for name in asked:
        if name not in known:
            raise InputError(f"{flag} {name}", expected=" or ".join(known), fix="choose of them")
    return asked


def _command(args: argparse.Namespace, threads: int) -> str:
    words = {
        "minutes": f"{args.minutes:g}",
        "shape": args.shape,
        "layers": args.layers,
        "block-size": args.block_size,
        "vision-precision": args.vision_precision,
    }
    if args.parts != ",".join(PARTS):
        words["parts"] = args.parts
    if args.without:
        words["without"] = args.without
    words["threads"] = threads
    return "python -m benchmarks.cpu " + " ".join(f"--{name} {value}" for name, value in words.items())


def _died(status: int) -> HiredEdgeError:
    return HiredEdgeError(f"a process ended with status {status}", expected="its figures", fix="free memory")


if __name__ == "__main__":
    sys.exit(main())
