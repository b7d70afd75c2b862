"""`python -m benchmarks.vision`: the tower and projector on a CPU, ours beside PyTorch and a plain ONNX export.

It writes on top of docs/performance.md, and the last line of stdout is one JSON object. All sides encode the same tiles
in turn, round after round. Files are made once, in build/vision: 4 GB for the tower of a 7B model. llama.cpp's tower
(mtmd) has random weights of its own; where its environment cannot be made, it is left out, and named.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks.command import Page, at_least_one, folder_of_its_own, guarded, where
from benchmarks.comparison import Show, in_child
from benchmarks.cpu import peers
from benchmarks.cpu.page import HEAD
from benchmarks.cpu.results import LLAMA
from benchmarks.cpu.workers import Worker
from benchmarks.vision.agreement import Outputs, agreement
from benchmarks.vision.files import PRECISIONS, Files, make, make_mmproj
from benchmarks.vision.results import MAPS, MTMD, SDPA, STOCK, Run, Side, section
from hired_edge import strict
from hired_edge.cli import Parser
from hired_edge.errors import InputError
from hired_edge.planner.config import model_shape, read_config
from hired_edge.planner.shapes import ModelShape
from hired_edge.tiling import tile
from hired_runtime.profiling import progress
from hired_runtime.profiling.machine import machine

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/performance.md"
PICTURE = ROOT / "demo/pictures/coffee.jpg"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; 0, 2 for what a user can mend, 130 for Ctrl-C."""
    return guarded("benchmarks.vision", lambda: _run(_parser().parse_args(argv)), "the page is as it was")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.vision", description="the vision tower on a CPU, beside PyTorch")
    parser.add_argument("--shape", default="llava-v1.6-vicuna-7b", metavar="NAME", help="of a LLaVA-NeXT model")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="after one to warm up (default: 5)")
    parser.add_argument("--threads", type=int, metavar="N", help="of every side (default: as many as cores)")
    parser.add_argument("--without", choices=[LLAMA], help="leaves out a peer")
    parser.add_argument("--peers", default=str(ROOT / ".venv-peers"), metavar="DIR", help="(default: .venv-peers)")
    parser.add_argument("--work", default=str(ROOT / "build/vision"), metavar="DIR", help="(default: build/vision)")
    parser.add_argument("--out", default=str(PAGE), metavar="FILE", help="the page (default: docs/performance.md)")
    return parser


def _run(args: argparse.Namespace) -> int:
    here, book = machine(), Page(Path(args.out), HEAD)
    at_least_one("--rounds", args.rounds)
    model = model_shape(read_config(args.shape))
    if not model.tiling.pinpoints:
        raise InputError(f"--shape {args.shape}", expected="a LLaVA-NeXT model: one with tiles", fix="choose another")
    threads = here.cores if args.threads is None else args.threads
    at_least_one("--threads", threads)
    files = Files(folder_of_its_own("--work", Path(args.work)), args.shape, PICTURE)
    interpreter, left_out = peers.found(Path(args.peers), args.without == LLAMA)
    with progress.line() as show:
        in_child(make, files, show)
        for weights in MTMD if interpreter else ():
            show(f"llama.cpp's tower, {weights}")
            assert interpreter is not None
            make_mmproj(files, interpreter, model, weights)
        sides, versions = _measured(files, model, interpreter, threads, args.rounds, show)
    run = Run(
        written=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        command=_command(args, files, threads),
        shape=files.folder.name,
        tiles=len(np.load(files.pixels, mmap_mode="r")),
        where=where(here, threads, versions),
        sides=sides,
        left_out=tuple(left_out),
    )
    print(section(run))
    print(json.dumps(strict.to_json(run), allow_nan=False), flush=True)
    book.add(section(run))
    return 0


def _command(args: argparse.Namespace, files: Files, threads: int) -> str:
    said = f"python -m benchmarks.vision --shape {files.folder.name} --rounds {args.rounds} --threads {threads}"
    return f"{said} --without {args.without}" if args.without else said


def _measured(
    files: Files, model: ModelShape, interpreter: str | None, threads: int, rounds: int, show: Show
) -> tuple[tuple[Side, ...], tuple[str, ...]]:
    """Every side, in rounds, and the versions of the libraries. The first round warms up and gives the outputs."""
    common, rules = [str(files.pixels), str(threads)], model.tiling
    with ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:

        def opened(name: str, module: str, source: str) -> Worker:
            show(f"opening {name}")
            return stack.enter_context(Worker(name, None, f"benchmarks.vision.{module}", [source, *common]))

        pytorch = opened("PyTorch", "torch_side", files.shape)
        stock = opened(STOCK, "ort_side", str(files.stock))
        asked = {MAPS: (pytorch, "maps"), SDPA: (pytorch, "sdpa"), STOCK: (stock, "together")}
        for precision in PRECISIONS:
            ours = opened(f"hired-edge, {precision}", "ort_side", str(files.graph(precision)))
            asked[f"{ours.name}, all at once"] = (ours, "together")
            asked[f"{ours.name}, tile by tile"] = (ours, "one_by_one")
        versioned = [pytorch, stock]
        for weights, name in MTMD.items() if interpreter else ():
            show(f"opening {name}")
            told = [str(files.mmproj(weights)), str(files.text), *common, str(rules.patches_per_tile)]
            theirs = stack.enter_context(Worker(name, interpreter, "benchmarks.vision.mtmd_side", told))
            asked[name] = (theirs, "together")
            versioned.append(theirs)
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        outputs: dict[str, Outputs] = {}
        for number in range(rounds + 1):
            for name, (worker, how) in asked.items():
                show(f"round {number} of {rounds}: {name}")
                taken = worker.ask(how)
                if number:
                    seconds[name].append(taken)
                if number or name in MTMD.values():  # whose weights are others
                    continue
                path = Path(scratch) / "outputs.npz"
                worker.ask("save", path=str(path))
                with np.load(path) as found:
                    outputs[name] = dict(found)
        versions = tuple(dict.fromkeys(worker.ask("version") for worker in versioned))
    side = 2 * rules.image_size
    cut = tile(side, side, rules)
    agreements = {name: agreement(found, outputs[MAPS], cut) for name, found in outputs.items()}
    return tuple(Side(name, tuple(taken), agreements.get(name)) for name, taken in seconds.items()), versions


if __name__ == "__main__":
    sys.exit(main())
