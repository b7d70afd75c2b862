"""`python -m benchmarks.full_size`: a checkpoint of full size through the whole path, written to docs/full-size.md.

Random weights in the Hub's layout (`benchmarks.checkpoint`) -> `hired-edge export` -> the plan held against a process
-> one picture to an answer at 100, 40 and 20 % -> fifty requests in one process, whose memory must not grow. The
checkpoint is made once, in build/full, a bundle once for each exporter; a GPU target's is exported and not run. Nothing
is extrapolated, and nothing compared: that is `benchmarks.cpu`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import onnxruntime

from benchmarks.command import Page, at_least_one, folder_of_its_own, guarded, where
from benchmarks.cpu.page import GIB, table
from benchmarks.cpu.results import Where
from benchmarks.shapes import BUDGETS, folder_name, square
from hired_edge import child, strict
from hired_edge.cli import Parser
from hired_edge.errors import HiredEdgeError
from hired_edge.planner.config import model_shape, read_config
from hired_export.identity import identity
from hired_runtime.profiling import schema
from hired_runtime.profiling.machine import machine

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs/full-size.md", ROOT / "demo/pictures/coffee.jpg"
NEW_TOKENS = 16
SOAK_BUDGET, SETTLED = "5%", 10
"""Of the requests whose memory is watched; whatever is allocated once is allocated after so many of them."""
GROWTH = 0.01
"""Of the resident bytes by then: what may come and go, as the C library holds freed blocks."""

HEAD = """# At full size

What `python -m benchmarks.full_size` did, newest first: a checkpoint with random weights of a 7B model's true shape,
exported, planned, run. Times and memory do not depend on the weights.
"""


@dataclass(frozen=True)
class Soak:
    """Many requests in one process: resident bytes after each."""

    budget: str
    resident: tuple[int, ...]

    @property
    def grows(self) -> bool:
        """Whether it ends with more than it had once it was settled."""
        return len(self.resident) > SETTLED and self.resident[-1] > (1 + GROWTH) * self.resident[SETTLED - 1]


@dataclass(frozen=True)
class Exported:
    """What is kept beside a bundle.

    Args:
        identity: of the exporter, its options and the checkpoint: another one makes the bundle anew.
        said: the exporter's own last line.
    """

    identity: str
    said: str


@dataclass(frozen=True)
class Run:
    """What one command found; parts that a GPU target does not have are None."""

    written: str
    command: str
    where: Where
    shape: str
    options: str
    checkpoint_bytes: int
    exported: str
    """The exporter's own last line."""
    measured: tuple[str, ...]
    """What `inspect --measure` printed."""
    profile: schema.Profile | None
    soak: Soak | None


@dataclass(frozen=True)
class SoakJob:
    """What the soaking process needs."""

    bundle: str
    picture: str
    requests: int
    threads: int


def main(argv: Sequence[str] | None = None) -> int:
    """Does all of it; 0, 2 for what a user can mend, 130 for Ctrl-C."""
    return guarded("benchmarks.full_size", lambda: _run(_parser().parse_args(argv)), "the page is as it was")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.full_size", description="a full-size checkpoint through the whole path")
    parser.add_argument("--shape", default="llava-v1.6-mistral-7b", metavar="NAME", help="of a LLaVA-NeXT model")
    parser.add_argument("--export", default="--precision int4", metavar="OPTIONS", help="(default: --precision int4)")
    parser.add_argument("--requests", type=int, default=50, metavar="N", help="in one process (default: 50)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the engine (default: as many as cores)")
    parser.add_argument("--work", default=str(ROOT / "build/full"), metavar="DIR", help="(default: build/full)")
    parser.add_argument("--out", default=str(PAGE), metavar="FILE", help="the page (default: docs/full-size.md)")
    return parser


def _run(args: argparse.Namespace) -> int:
    here, book = machine(), Page(Path(args.out), HEAD)
    threads = here.cores if args.threads is None else args.threads
    at_least_one("--threads", threads)
    at_least_one("--requests", args.requests)
    shape = model_shape(read_config(args.shape))
    work = folder_of_its_own("--work", Path(args.work))
    checkpoint, picture = work / folder_name(args.shape), work / "picture.png"
    if not checkpoint.exists():
        _call("benchmarks.checkpoint", args.shape, checkpoint)
    square(PICTURE, 2 * shape.tiling.image_size).save(picture)
    bundle = work / "-".join([checkpoint.name, *(word.strip("-") for word in args.export.split())])
    exported = _export(checkpoint, bundle, [*args.export.split(), "--visual-tokens", ",".join(BUDGETS)])
    on_cpu = "--target" not in args.export or "--target cpu" in args.export
    measured: list[str] = []
    profile = soak = None
    if on_cpu:
        measured = _call("hired_edge", "inspect", bundle, "--measure", args.shape, "--visual-tokens", BUDGETS[-1])[-3:]
        profile = _profile(work, bundle, picture, threads)
        job = SoakJob(str(bundle), str(picture), args.requests, threads)
        soak = Soak(SOAK_BUDGET, tuple(child.call(resident, job, died=_died)))
    run = Run(
        written=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        command=f"python -m benchmarks.full_size --shape {args.shape} --export '{args.export}' --threads {threads}",
        where=where(here, threads, (f"onnxruntime {onnxruntime.__version__}",)),
        shape=args.shape,
        options=args.export,
        checkpoint_bytes=sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")),
        exported=exported,
        measured=tuple(line.strip() for line in measured),
        profile=profile,
        soak=soak,
    )
    print(section(run))
    print(json.dumps(strict.to_json(run), allow_nan=False), flush=True)
    book.add(section(run))
    if soak is not None and soak.grows:
        print("benchmarks.full_size: the soak's memory grows", file=sys.stderr)
        return 1
    return 0


def _export(checkpoint: Path, bundle: Path, words: Sequence[str]) -> str:
    """The exporter's last line, of the export that made `bundle`: made here, unless it was by this very exporter."""
    told = bundle.with_name(f"{bundle.name}.exported.json")
    wanted = identity(checkpoint, Exported("", " ".join(words)))
    if bundle.exists() and told.exists():
        found = strict.from_json(Exported, json.loads(told.read_text(encoding="utf-8")))
        if found.identity == wanted:
            return found.said
    shutil.rmtree(bundle, ignore_errors=True)
    said = _call("hired_edge", "export", checkpoint, bundle, *words)[-1].rpartition("checked: ")[2]
    told.write_text(json.dumps(strict.to_json(Exported(wanted, said))), encoding="utf-8")
    return said


def _profile(work: Path, bundle: Path, picture: Path, threads: int) -> schema.Profile:
    words = ["--image", picture, "--budgets", ",".join(BUDGETS), "--threads", threads, "--warmup", 0]
    _call("hired_edge", "profile", bundle, *words, "--iterations", 1, "--max-new-tokens", NEW_TOKENS, "-o", work)
    return schema.read(work / "profile.json")


def resident(job: SoakJob) -> list[int]:
    """Bytes after each request; no two ask the same.

    Raises:
        HiredEdgeError: the bundle cannot be opened.
    """
    import hired_runtime
    from hired_runtime.profiling.memory import process_bytes

    model = hired_runtime.open(job.bundle, visual_tokens=SOAK_BUDGET, images=1, threads=job.threads)
    found = []
    for number in range(job.requests):
        model.ask(f"Question {number}?", [job.picture], max_new_tokens=2)
        found.append(process_bytes())
    return found


def section(run: Run) -> str:
    """One run, as a part of the page."""
    lines = [
        f"## {run.written}: {run.shape}, `{run.options}`",
        "",
        run.where.line(run.command),
        "",
        f"Export of {run.checkpoint_bytes / 1e9:.2f} GB: {run.exported}.",
        "",
    ]
    if run.measured:
        lines += ["The plan, and a process that answers one question at 20 % on one thread:", ""]
        lines += [*(f"    {line}" for line in run.measured), ""]
    if run.profile is not None:
        heading = ["budget", "visual tokens", "cache, MiB", "opening, s", "of it hashing", "vision, s", "prefill, s"]
        rows = [_row(each) for each in run.profile.budgets]
        lines += [*table([*heading, "time to first token, s", "a token, ms", "peak memory, GiB"], rows), ""]
        lines += ["A process for each budget, and its first request, once; a token is the mean of its answer's.", ""]
    if run.soak is not None and len(run.soak.resident) > SETTLED:
        after = run.soak.resident
        mib = [size / 2**20 for size in (after[SETTLED - 1], after[-1], max(after[SETTLED:]))]
        lines += [
            f"{len(after)} requests in one process at {run.soak.budget.replace('%', ' %')}: {mib[0]:.0f} MiB resident"
            f" after {SETTLED}, {mib[1]:.0f} after {len(after)}, at most {mib[2]:.0f} in between.",
            "",
        ]
    return "\n".join(lines) + "\n"


def _row(each: schema.BudgetProfile) -> list[str]:
    seconds = {name: found.values[0] / 1e3 for name, found in each.timings_ms.items()}
    per_token = each.time_per_output_token_ms
    return [
        each.budget.replace("%", " %"),
        str(each.visual.kept + each.visual.newlines),
        f"{each.cache_bytes / 2**20:.0f}",
        f"{each.load.total_ms / 1e3:.1f}",
        f"{each.load.verify_ms / 1e3:.1f}",
        *(f"{seconds[stage]:.1f}" for stage in ("vision", "prefill", "ttft")),
        "" if per_token is None else f"{per_token.values[0]:.0f}",
        f"{each.memory.process_high_water_bytes / GIB:.2f}",
    ]


def _call(module: str, *arguments: object) -> list[str]:
    """Runs a command of this repository, its progress shown, and returns the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        command = " ".join([module, *map(str, arguments)])
        raise HiredEdgeError(f"{command} ended with status {done.returncode}", expected="0", fix="see what it said")
    return done.stdout.splitlines() or [""]


def _died(status: int) -> HiredEdgeError:
    return HiredEdgeError(f"a process ended with status {status}", expected="its figures", fix="free memory")


if __name__ == "__main__":
    sys.exit(main())
