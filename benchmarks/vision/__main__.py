"""`python -m benchmarks.vision`: the tower and projector on a CPU, ours beside PyTorch and a plain ONNX export.

It writes on top of docs/performance.md, and the last line of stdout is one JSON object. All sides encode the same tiles
in turn, round after round. Files are made once, in build/vision: 3 GB for the tower of a 7B model. llama.cpp's tower
(mtmd) is left out: llama-cpp-python reaches it through a whole language model alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks.comparison import Show, in_child
from benchmarks.cpu.page import with_section
from benchmarks.cpu.results import Where
from benchmarks.cpu.workers import Worker
from benchmarks.vision.agreement import Outputs, agreement
from benchmarks.vision.files import PRECISIONS, Files, make
from benchmarks.vision.results import MAPS, SDPA, STOCK, Run, Side, section
from hired_edge import __version__, strict
from hired_edge.cli import EXIT_ERROR, EXIT_INTERRUPTED, EXTRAS, Parser
from hired_edge.errors import HiredEdgeError, InputError
from hired_edge.planner.config import model_shape, read_config
from hired_edge.tiling import TilingRules, tile
from hired_runtime.profiling import progress
from hired_runtime.profiling.machine import machine
from hired_runtime.whole import whole

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/performance.md"
PICTURE = ROOT / "demo/pictures/coffee.jpg"
LEFT_OUT = "llama.cpp's mtmd (llama-cpp-python reaches it through a whole language model alone)"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; 0, 2 for what a user can mend, 130 for Ctrl-C."""
    try:
        return _run(_parser().parse_args(argv))
    except HiredEdgeError as error:
        print("benchmarks.vision: error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"benchmarks.vision: error: no module named {error.name}; pip install '.[{extra}]'", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("benchmarks.vision: interrupted; nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.vision", description="the vision tower on a CPU, beside PyTorch")
    parser.add_argument("--shape", default="llava-v1.6-vicuna-7b", metavar="NAME", help="of a LLaVA-NeXT model")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="after one to warm up (default: 5)")
    parser.add_argument("--threads", type=int, metavar="N", help="of every side (default: as many as cores)")
    parser.add_argument("--work", default=str(ROOT / "build/vision"), metavar="DIR", help="(default: build/vision)")
    parser.add_argument("--out", default=str(PAGE), metavar="FILE", help="the page (default: docs/performance.md)")
    return parser


def _run(args: argparse.Namespace) -> int:
    here, out = machine(), Path(args.out)
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder", expected="the one that the page goes to", fix="make it first")
    if args.rounds < 1:
        raise InputError(f"--rounds {args.rounds}", expected="1 or more", fix="pass another --rounds")
    rules = model_shape(read_config(args.shape)).tiling
    if not rules.pinpoints:
        raise InputError(f"--shape {args.shape}", expected="a LLaVA-NeXT model: one with tiles", fix="choose another")
    threads = here.cores if args.threads is None else args.threads
    files = Files(Path(args.work), args.shape, PICTURE)
    with progress.line() as show:
        in_child(make, files, show)
        sides, versions = _measured(files, rules, threads, args.rounds, show)
    run = Run(
        written=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        command=f"python -m benchmarks.vision --shape {files.folder.name} --rounds {args.rounds} --threads {threads}",
        shape=files.folder.name,
        tiles=len(np.load(files.pixels, mmap_mode="r")),
        where=Where(
            processor=here.processor,
            cores=here.cores,
            memory_bytes=here.memory_bytes,
            threads=threads,
            python=platform.python_version(),
            versions=(f"hired-edge {__version__}", *versions),
        ),
        sides=sides,
        left_out=(LEFT_OUT,),
    )
    print(section(run))
    older = out.read_text(encoding="utf-8") if out.exists() else None
    with whole(out) as partial:
        partial.write_text(with_section(older, section(run)), encoding="utf-8")
    print(json.dumps(strict.to_json(run), allow_nan=False))
    return 0


def _measured(
    files: Files, rules: TilingRules, threads: int, rounds: int, show: Show
) -> tuple[tuple[Side, ...], tuple[str, ...]]:
    """Every side, in rounds, and the versions of the libraries. The first round warms up and gives the outputs."""
    common = [str(files.pixels), str(threads)]
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
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        outputs: dict[str, Outputs] = {}
        for number in range(rounds + 1):
            for name, (worker, how) in asked.items():
                show(f"round {number} of {rounds}: {name}")
                taken = worker.ask(how)
                if number:
                    seconds[name].append(taken)
                    continue
                path = Path(scratch) / "outputs.npz"
                worker.ask("save", path=str(path))
                with np.load(path) as found:
                    outputs[name] = dict(found)
        versions = tuple(dict.fromkeys(worker.ask("version") for worker in (pytorch, stock)))
    side = 2 * rules.image_size
    cut = tile(side, side, rules)
    agreements = {name: agreement(found, outputs[MAPS], cut) for name, found in outputs.items()}
    return tuple(Side(name, tuple(taken), agreements[name]) for name, taken in seconds.items()), versions


if __name__ == "__main__":
    sys.exit(main())
