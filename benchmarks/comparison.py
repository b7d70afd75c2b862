"""The whole comparison: files are made, ceilings and cells measured, each in a process of its own, answers compared.

A cell that fails (out of memory, mostly) is told in its place, and the rest goes on. Cells that were measured before,
with the same settings on the same machine, are kept in the work folder and not measured again.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import agreement, machine, ours, roofline, shapes, witness
from benchmarks.job import Job
from benchmarks.results import Agreement, Ceilings, Cell, Device, Figures, Results, Row, Setup, Side, Where
from benchmarks.shapes import Files
from hired_edge import child, strict
from hired_edge.errors import BundleError, HiredEdgeError
from hired_edge.manifest import Precision, Target
from hired_runtime.profiling import PROMPT
from hired_runtime.profiling.measuring import Job as Asked
from hired_runtime.whole import whole

TARGETS: dict[Device, Target] = {"cuda": "cuda", "cpu": "cpu"}
FULL: dict[Device, Precision] = {"cuda": "fp16", "cpu": "fp32"}
"""What PyTorch runs in."""
PICTURE = Path(__file__).resolve().parent.parent / "demo/pictures/coffee.jpg"
MOST_TOLD = 160
"""Characters of an error on the page."""
_MEMORY = re.compile(r"out.of.memory|failed to allocate|MemoryAllocation|killed by SIGKILL", re.IGNORECASE)

Engines = dict[Precision, ours.Engine | HiredEdgeError]
"""Of each precision: what runs it, or why nothing does."""
Show = Callable[[str], None]
Call = Callable[[Callable[..., Any], Any, Show], Any]
"""Calls `function(argument, report)` somewhere."""


@dataclass(frozen=True)
class Plan:
    """What is compared. `precisions` are those of our runtime; PyTorch has `FULL`."""

    files: Files
    device: Device
    budgets: tuple[str, ...]
    batches: tuple[int, ...]
    precisions: tuple[Precision, ...]
    new_tokens: int
    warmup: int
    iterations: int
    restart: bool

    def cells(self) -> Iterator[Cell]:
        """Of each budget and batch: `stock` where nothing is dropped, `research` where something is, and `ours`."""
        for budget in self.budgets:
            for batch in self.batches:
                yield Cell(self.reference(budget), FULL[self.device], budget, batch)
                for precision in self.precisions:
                    yield Cell("ours", precision, budget, batch)

    @staticmethod
    def reference(budget: str) -> Side:
        """Whose answer ours is held against."""
        return "stock" if budget == "100%" else "research"

    def bundle(self, precision: Precision) -> Path:
        return self.files.bundle(TARGETS[self.device], precision)

    def trouble(self, error: HiredEdgeError) -> str:
        """What the page says of an error."""
        return "out of memory" if _MEMORY.search(error.got) else self.told(error.got)

    def told(self, text: str) -> str:
        """A text as a table's cell can hold it, and without this machine's paths."""
        text = text.replace(f"{self.files.folder}/", "").replace("|", "/")
        return text if len(text) <= MOST_TOLD else f"{text[: MOST_TOLD - 3]}..."


def in_child(function: Callable[..., Any], argument: Any, show: Show) -> Any:
    """A `Call`: in a process of its own."""

    def died(status: int) -> HiredEdgeError:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return HiredEdgeError(
            f"the process {how}", expected="its measurements", fix="see what is printed above, or free memory"
        )

    return child.call_reporting(function, argument, show, died=died)


def measure(task: tuple[Side, Job], report: Show) -> Figures:
    """One cell: only the process that measures a PyTorch side imports PyTorch."""
    side, job = task
    return importlib.import_module(f"benchmarks.{side}").measure(job, report)


def compare(plan: Plan, show: Show, on_row: Callable[[Row], None], call: Call = in_child) -> Results:
    """Everything.

    Args:
        plan: what to compare.
        show: is told what is being done.
        on_row: is given each cell as it is done.
        call: runs what is to have a process of its own.

    Raises:
        HiredEdgeError: no GPU where one is asked for, or files that cannot be made. A cell's own trouble is in its row.
    """
    where: Where = call(machine.look, plan.device, show)
    setup = _make_files(plan, show)
    ceilings: Ceilings = call(roofline.measure, plan.device, show)
    engines: Engines = {precision: _engine(plan, precision, show, call) for precision in plan.precisions}
    kept = _Kept(plan, setup, where)
    rows = []
    for cell in plan.cells():
        rows.append(_row(cell, plan, setup, engines, ceilings, kept, show, call))
        on_row(rows[-1])
    agreements, disagreement = _agreements(plan, engines, show, call)
    notes = [engine.note for engine in engines.values() if isinstance(engine, ours.Engine)]
    return Results(
        written=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        setup=setup,
        where=where,
        notes=tuple(dict.fromkeys(plan.told(note) for note in notes if note)),
        ceilings=ceilings,
        rows=tuple(rows),
        agreements=agreements,
        disagreement=disagreement,
    )


def _make_files(plan: Plan, show: Show) -> Setup:
    files = plan.files
    try:
        show("drawing the weights")
        shapes.make_checkpoint(files)
        show("the picture")
        size = shapes.make_picture(files, PICTURE)
    except OSError as error:
        raise HiredEdgeError(
            f"{files.work} cannot be written ({error.strerror or error})",
            expected="room and the right to write there",
            fix="free some space, or pass another --work",
        ) from None
    for precision in dict.fromkeys((FULL[plan.device], *plan.precisions)):
        show(f"exporting {precision}")
        shapes.make_bundle(files, TARGETS[plan.device], precision)
    return Setup(
        shape=files.shape.name,
        seed=files.seed,
        device=plan.device,
        prompt=PROMPT,
        picture=size,
        new_tokens=plan.new_tokens,
        warmup=plan.warmup,
        iterations=plan.iterations,
    )


def _engine(plan: Plan, precision: Precision, show: Show, call: Call) -> ours.Engine | HiredEdgeError:
    try:
        return call(ours.choose, (str(plan.bundle(precision)), plan.device), show)
    except HiredEdgeError as error:
        return error


def _job(plan: Plan, cell: Cell, engine: ours.Engine | None) -> Job:
    asked = Asked(
        bundle=str(plan.bundle(cell.precision)),
        budget=cell.budget,
        prompt=PROMPT,
        images=(str(plan.files.picture),),
        policy="hired",
        alpha="0.5",
        newlines=None,
        batch=cell.batch,
        new_tokens=plan.new_tokens,
        threads=None,
        backend=None if engine is None else engine.backend,
        warmup=plan.warmup,
        iterations=plan.iterations,
    )
    return Job(asked, str(plan.files.checkpoint), plan.device)


def _row(
    cell: Cell,
    plan: Plan,
    setup: Setup,
    engines: Engines,
    ceilings: Ceilings,
    kept: _Kept,
    show: Show,
    call: Call,
) -> Row:
    try:
        figures = kept.read(cell)
        if figures is None:
            engine = engines[cell.precision] if cell.side == "ours" else None
            if isinstance(engine, HiredEdgeError):
                raise engine
            job = _job(plan, cell, engine)
            figures = call(measure, (cell.side, job), lambda step: show(f"{cell.name}: {step}"))
            kept.write(cell, figures)
    except HiredEdgeError as error:
        return Row(cell, None, None, plan.trouble(error))
    target, model = TARGETS[plan.device], plan.files.shape.sizes
    least = roofline.least(model, target, cell.precision, figures, cell.batch, setup.new_tokens, ceilings)
    return Row(cell, figures, least, None)


def _agreements(plan: Plan, engines: Engines, show: Show, call: Call) -> tuple[tuple[Agreement, ...], str | None]:
    """Every precision that has an engine, at every budget; why not, where the answers cannot be had."""
    found: list[Agreement] = []
    try:
        theirs = call(
            witness.theirs,
            (_job(plan, Cell("stock", FULL[plan.device], plan.budgets[0], 1), None), plan.budgets),
            lambda step: show(f"answers of PyTorch: {step}"),
        )
        for precision, engine in engines.items():
            if isinstance(engine, ours.Engine):
                job = _job(plan, Cell("ours", precision, plan.budgets[0], 1), engine)
                answers = call(
                    witness.ours, (job, plan.budgets), lambda step, p=precision: show(f"our answers, {p}: {step}")
                )
                pairs: Sequence[tuple[Any, ...]] = list(zip(plan.budgets, answers, theirs, strict=True))
                found += [agreement.compare(precision, *each) for each in pairs]
    except HiredEdgeError as error:
        return tuple(found), plan.trouble(error)
    return tuple(found), None


class _Kept:
    """Figures of cells in the work folder, by settings and machine. Trouble is not kept: it is tried again."""

    def __init__(self, plan: Plan, setup: Setup, where: Where) -> None:
        digest = hashlib.sha256((strict.dumps(setup) + strict.dumps(where)).encode()).hexdigest()[:12]
        self._folder = plan.files.folder / f"cells-{digest}"
        if plan.restart:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)

    def read(self, cell: Cell) -> Figures | None:
        """None for a cell that was not measured, or whose file is not whole."""
        path = self._folder / f"{cell.name}.json"
        try:
            return strict.from_json(Figures, strict.loads(path.read_text(), "the cell"), "the cell")
        except (OSError, BundleError):
            return None

    def write(self, cell: Cell, figures: Figures) -> None:
        with whole(self._folder / f"{cell.name}.json") as partial:
            partial.write_text(strict.dumps(figures))
