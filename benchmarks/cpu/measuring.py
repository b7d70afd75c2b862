"""The run itself: workers are opened, asked in turn round by round, and what there is no time for is left out by name.

Rounds are interleaved: whatever the machine does besides meets every side alike. Parts come in order of what they
tell; one goes on after its first round, which warms up, only if the time left is enough for the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from statistics import median
from typing import Any

from benchmarks.cpu import memory, peers
from benchmarks.cpu.files import Files
from benchmarks.cpu.results import LLAMA, OURS, OURS_BESIDE_TORCH, TORCH, Peak, Series, Share
from benchmarks.cpu.workers import Worker
from benchmarks.shapes import BATCHES, BUDGETS
from hired_edge import child
from hired_edge.errors import HiredEdgeError
from hired_edge.policies import POLICIES

PROMPTS = (640, 2992)
"""Tokens: 20 % and 100 % of a picture of two by two tiles (576 and 2,928), each with a question of 64."""
STEPS = 12
"""Of one decode measurement; the first few warm up and are not counted."""
WARM = 4
ROUNDS = 5
SLOTS = 3136
"""Positions of the peers' caches: the longer prompt, and room for an answer. Ours are the bundle's."""


@dataclass
class Clock:
    """The time given, and what it was not enough for."""

    minutes: float
    started: float = field(default_factory=time.monotonic)
    left_out: list[str] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.started)


@dataclass(frozen=True)
class Question:
    """One thing to be measured: how it is asked for, and the seconds in the answer."""

    what: str
    ask: Callable[[Worker], float | dict[str, float]]


@dataclass
class Measuring:
    """What a run needs, and what it has found so far."""

    files: Files
    layers: tuple[int, int]
    threads: int
    clock: Clock
    show: Callable[[str], None]
    interpreter: str | None
    """Of the peers' environment; None without llama.cpp."""
    pytorch: bool
    series: list[Series] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    policies: dict[str, tuple[float, ...]] = field(default_factory=dict)
    shares: dict[str, tuple[Share, ...]] = field(default_factory=dict)
    peaks: list[Peak] = field(default_factory=list)

    def engines(self) -> None:
        """Prefill and decode of every side and depth, interleaved."""
        with ExitStack() as stack:
            workers = [
                (side, layers, stack.enter_context(self._open(side, layers)))
                for layers in self.layers
                for side in (OURS, LLAMA)
                if side == OURS or self.interpreter is not None
            ]
            self._note_versions([worker for _, layers, worker in workers if layers == self.layers[0]])
            for tokens in PROMPTS:
                self._rounds(f"{tokens} tokens", workers, prompt_questions(tokens), ROUNDS)

    def vision_side(self) -> None:
        """Everything before the prefill, at every budget; HiRED in PyTorch at 20 %, and its prefill."""
        few = self.layers[0]
        with ExitStack() as stack:
            worker = stack.enter_context(self._open(OURS, few))
            ours, picture = [(OURS, few, worker)], str(self.files.picture)
            theirs = [(TORCH, few, stack.enter_context(self._open(TORCH, few)))] if self.pytorch else []
            self._note_versions([each for _, _, each in theirs])
            short, rest = BUDGETS[-1], BUDGETS[:-1]
            self._rounds("the vision side", [*ours, *theirs], [see_question(picture, short)], ROUNDS)
            self._rounds("our vision side", ours, [see_question(picture, budget) for budget in rest], ROUNDS)
            names = [name for name, policy in POLICIES.items() if not policy.stock]
            found = worker.ask("policies", budget="20%", names=names, repeats=20)
            self.policies = {name: tuple(seconds) for name, seconds in found.items()}

    def pytorch_engine(self) -> None:
        """PyTorch's prefill and decode of the shorter prompt, at both depths, and ours once more beside it."""
        if not self.pytorch:
            return
        with ExitStack() as stack:
            workers = [
                (name, layers, stack.enter_context(self._open(side, layers)))
                for layers in self.layers
                for name, side in ((OURS_BESIDE_TORCH, OURS), (TORCH, TORCH))
            ]
            self._rounds("PyTorch's prefill", workers, prompt_questions(PROMPTS[0]), ROUNDS)

    def where_time_goes(self) -> None:
        """Operators of a prefill and of a decode step, at the larger depth."""
        with self._open(OURS, self.layers[1]) as worker:
            for tokens in PROMPTS:
                for name, found in worker.ask("profile", tokens=tokens).items():
                    self.shares[name] = tuple(Share(operator, seconds) for operator, seconds in found.items())

    def memory(self) -> None:
        """Peaks of processes at the smaller depth, every budget and batch."""
        layers = self.layers[0]
        sides: list[tuple[str, Callable[[memory.Job], memory.Peaks]]] = [(OURS, memory.ours)]
        if self.pytorch:
            sides.append((TORCH, memory.torch))
        slowest = 0.0
        for batch, budget in product(BATCHES, reversed(BUDGETS)):
            for side, peak in sides:
                name = f"memory of {side} at {budget}, batch {batch}, {layers} layers"
                if self.clock.left_s < 1.5 * slowest:
                    self.clock.left_out.append(f"{name} (no time left)")
                    continue
                self.show(name)
                start = time.monotonic()
                try:
                    found = child.call(peak, self._memory_job(layers, budget, batch), died=_died)
                    self.peaks.append(Peak(side, budget, batch, layers, *found))
                except HiredEdgeError as error:
                    self.clock.left_out.append(f"{name} ({error.got})")
                slowest = max(slowest, time.monotonic() - start)

    def _memory_job(self, layers: int, budget: str, batch: int) -> memory.Job:
        made = self.files
        checkpoint, bundle = str(made.checkpoint(layers)), str(made.bundle(layers))
        return memory.Job(checkpoint, bundle, str(made.picture), budget, batch, self.threads)

    def _open(self, side: str, layers: int) -> Worker:
        self.show(f"opening {side}, {layers} layers")
        made, threads = self.files, str(self.threads)
        python, module, arguments = {
            OURS: (None, "ours", [str(made.bundle(layers)), threads, "100%"]),
            LLAMA: (self.interpreter, "llama", [str(made.gguf(layers)), threads, str(SLOTS)]),
            TORCH: (None, "torch_side", [str(made.checkpoint(layers)), str(made.bundle(layers)), threads]),
        }[side]
        if side == LLAMA:
            assert python is not None
            peers.write_gguf(python, made.gguf(layers), made.sizes, layers)
        return Worker(f"{side}, {layers} layers", python, f"benchmarks.cpu.{module}", arguments)

    def _rounds(
        self, name: str, workers: Sequence[tuple[str, int, Worker]], questions: Sequence[Question], rounds: int
    ) -> None:
        """Asks every worker every question, round after round; the first one warms up and tells how long one takes."""
        found: dict[tuple[str, int, str], list[float]] = {}
        start = time.monotonic()
        for number in range(rounds + 1):
            if number == 1 and self.clock.left_s < rounds * (time.monotonic() - start):
                self.clock.left_out.append(f"{name} ({', '.join(sorted({side for side, _, _ in workers}))}: no time)")
                return
            for question in questions:
                for side, layers, worker in workers:
                    self.show(f"{name}: round {number} of {rounds}, {worker.name}, {question.what}")
                    answer: Any = question.ask(worker)
                    parts = answer if isinstance(answer, dict) else {"": answer}
                    if number:
                        for part, seconds in parts.items():
                            what = f"{question.what} {part}".strip()
                            found.setdefault((side, layers, what), []).append(seconds)
        self.series += [Series(side, what, layers, tuple(s)) for (side, layers, what), s in found.items()]

    def _note_versions(self, workers: Sequence[Worker]) -> None:
        self.versions += [worker.ask("version") for worker in workers]


def prompt_questions(tokens: int) -> list[Question]:
    """A prompt, and then the tokens behind it."""

    def decode(worker: Worker) -> float:
        return median(worker.ask("decode", cache=tokens, steps=STEPS)[WARM:])

    return [
        Question(f"prefill {tokens}", lambda worker: worker.ask("prefill", tokens=tokens)),
        Question(f"decode {tokens}", decode),
    ]


def see_question(picture: str, budget: str) -> Question:
    """The vision side, which our runtime tells by stage."""
    return Question(f"see {budget}", lambda worker: worker.ask("see", picture=picture, budget=budget))


def _died(status: int) -> HiredEdgeError:
    return HiredEdgeError(f"its process ended with status {status}", expected="room for it", fix="free memory")
