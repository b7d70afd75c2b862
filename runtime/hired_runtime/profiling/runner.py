"""Profiles a bundle: refuses first what can be refused, then measures budget after budget, each in its own process."""

from __future__ import annotations

import contextlib
import platform
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hired_edge import __version__
from hired_edge.budget import Budget, parse_budget
from hired_edge.bundle import read_manifest
from hired_edge.child import call_reporting
from hired_edge.errors import HiredEdgeError, InputError
from hired_edge.limits import resolve_opening
from hired_edge.manifest import Manifest
from hired_edge.packing import newline_policy
from hired_edge.policies import policy_named
from hired_edge.tiling import tile
from hired_runtime.board.tegrastats import Sampler
from hired_runtime.pictures import load_picture
from hired_runtime.profiling import board_power
from hired_runtime.profiling.machine import machine
from hired_runtime.profiling.measuring import Job, Measured, measure
from hired_runtime.profiling.schema import (
    FORMAT_VERSION,
    TIMINGS,
    BudgetProfile,
    Picture,
    Power,
    Profile,
    ProfiledBundle,
    ProfiledRequest,
    Versions,
)
from hired_runtime.profiling.spread import statistics_of
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted

NEW_TOKENS = 32
"""Of an answer, where nothing else is asked for and the bundle allows it."""
PROMPT = "What is shown in this picture?"
OnStep = Callable[[str, str], None]
"""Called with the budget and how far it has got ("iteration 3 of 10")."""


@dataclass(frozen=True)
class Plan:
    """What is to be profiled.

    Args:
        bundle: a folder that `hired-edge export` wrote.
        images: pictures of the request, 1 or more.
        budgets: at least one; each once.
        policy, alpha, newlines: how visual tokens are chosen.
        prompt: the question.
        new_tokens: made in each row; None = `NEW_TOKENS`, or as many as were exported.
        batch: the request so many times at once.
        threads: of the engine, on the CPU; None = its own choice.
        backend: see `hired_runtime.open`.
        warmup, iterations: requests before the first that is timed, and those that are.
        power: whether a Jetson's power is measured along.
        public_keys: see `hired_runtime.open`.

    Raises:
        InputError: a number or an option out of its range.
    """

    bundle: Path
    images: tuple[str, ...]
    budgets: tuple[str, ...]
    policy: str = "hired"
    alpha: str = "0.5"
    newlines: str | None = None
    prompt: str = PROMPT
    new_tokens: int | None = None
    batch: int = 1
    threads: int | None = None
    backend: str | None = None
    warmup: int = 3
    iterations: int = 10
    power: bool = False
    public_keys: tuple[PublicKey, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in {"warmup": 0, "iterations": 1, "batch": 1, "new_tokens": 1, "threads": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                option = "--max-new-tokens" if name == "new_tokens" else f"--{name}"
                raise InputError(f"{option} {value}", expected=f"{least} or more", fix=f"pass another {option}")
        if not self.images:
            raise InputError("no picture to profile with", expected="at least one", fix="pass --image FILE")
        if not self.budgets:
            raise InputError("no budget to profile", expected="at least one", fix="pass --budgets 100%,20%")
        parsed = [str(parse_budget(budget)) for budget in self.budgets]
        for budget in parsed:
            if parsed.count(budget) > 1:
                raise InputError(f"the budget {budget} twice", expected="each once", fix="leave one out")
        if policy_named(self.policy).stock and parsed != ["100%"]:
            raise InputError(
                f"policy {self.policy!r} with the budgets {', '.join(parsed)}",
                expected="100%: this policy keeps every visual token, whatever the budget",
                fix="pass --budgets 100%, or another --policy",
            )


def profile(plan: Plan, on_step: OnStep | None = None) -> Profile:
    """Measures every budget of a plan.

    Raises:
        HiredEdgeError: something is asked that the bundle was not exported for, before anything is loaded; a picture, a
            prompt or a bundle that cannot be used; a process that died; `power` where there is none.
    """
    manifest = read_manifest(plan.bundle, trusted(plan.public_keys))
    budgets = [parse_budget(budget) for budget in plan.budgets]
    new_tokens = min(NEW_TOKENS, manifest.limits.new_tokens) if plan.new_tokens is None else plan.new_tokens
    _check_limits(plan, manifest, budgets, new_tokens)
    pictures = _look_at(plan, manifest)
    where = machine()
    measured: list[Measured] = []
    powers: list[Power | None] = []
    with board_power.sampler() if plan.power else contextlib.nullcontext() as sampler:
        for budget in budgets:
            job = _job(plan, budget, new_tokens)
            measured.append(_in_child(job, on_step))
            powers.append(_power(sampler, measured[-1], plan))
    first = measured[0]
    return Profile(
        format_version=FORMAT_VERSION,
        bundle=ProfiledBundle(
            name=plan.bundle.resolve().name,
            digest=manifest.digest,
            checkpoint=manifest.checkpoint,
            family=manifest.family,
            target=manifest.target,
            precision=manifest.quantisation.precision,
            weights_bytes=manifest.memory.weights,
        ),
        request=ProfiledRequest(
            prompt=plan.prompt,
            images=pictures,
            policy=plan.policy,
            alpha=plan.alpha,
            newlines=plan.newlines,
            batch=plan.batch,
            text_tokens=first.text_tokens,
            new_tokens=new_tokens,
            threads=plan.threads,
            warmup=plan.warmup,
            iterations=plan.iterations,
        ),
        machine=where,
        versions=Versions(
            hired_edge=__version__, python=platform.python_version(), numpy=np.__version__, engine=first.engine
        ),
        budgets=tuple(
            _budget_profile(str(budget), found, power, plan.batch, new_tokens)
            for budget, found, power in zip(budgets, measured, powers, strict=True)
        ),
    )


def _check_limits(plan: Plan, manifest: Manifest, budgets: Sequence[Budget], new_tokens: int) -> None:
    for budget in budgets:
        resolve_opening(
            manifest.limits,
            manifest.vision.tiling,
            visual=budget,
            new_tokens=new_tokens,
            batch=plan.batch,
            images=len(plan.images),
        )
        _ = _job(plan, budget, new_tokens).request  # refuses what is no policy, alpha or newline policy


def _look_at(plan: Plan, manifest: Manifest) -> tuple[Picture, ...]:
    """Loads each picture once, so that a bad one is refused now."""
    pictures = []
    for image in plan.images:
        picture = load_picture(image)
        newline_policy(tile(picture.height, picture.width, manifest.vision.tiling), plan.newlines)
        pictures.append(Picture(Path(image).name, picture.width, picture.height))
    return tuple(pictures)


def _job(plan: Plan, budget: Budget, new_tokens: int) -> Job:
    return Job(
        bundle=str(plan.bundle),
        budget=str(budget),
        prompt=plan.prompt,
        images=plan.images,
        policy=plan.policy,
        alpha=plan.alpha,
        newlines=plan.newlines,
        batch=plan.batch,
        new_tokens=new_tokens,
        threads=plan.threads,
        backend=plan.backend,
        warmup=plan.warmup,
        iterations=plan.iterations,
        public_keys=plan.public_keys,
    )


def _in_child(job: Job, on_step: OnStep | None) -> Measured:
    def on_report(step: str) -> None:
        if on_step is not None:
            on_step(job.budget, step)

    def died(status: int) -> HiredEdgeError:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return HiredEdgeError(
            f"the process of budget {job.budget} {how}",
            expected="it to end with its measurements",
            fix="free memory (the kernel kills what it has none for), leave this budget out, or see what is printed "
            "above",
        )

    return call_reporting(measure, job, on_report, died=died)


def _power(sampler: Sampler | None, found: Measured, plan: Plan) -> Power | None:
    return None if sampler is None else board_power.power(sampler, found.window_s, plan.iterations * plan.batch)


def _budget_profile(budget: str, found: Measured, power: Power | None, batch: int, new_tokens: int) -> BudgetProfile:
    steps = new_tokens - 1
    decode = [each["decode"] for each in found.ms]
    return BudgetProfile(
        budget=budget,
        visual=found.visual,
        max_sequence_length=found.max_sequence_length,
        cache_bytes=found.cache_bytes,
        load=found.load,
        timings_ms={name: statistics_of([each[name] for each in found.ms]) for name in TIMINGS},
        time_per_output_token_ms=statistics_of([ms / steps for ms in decode]) if steps else None,
        decode_tokens_per_s=statistics_of([1e3 * batch * steps / ms for ms in decode]) if steps else None,
        tokens_per_s=statistics_of([1e3 * batch * new_tokens / each["total"] for each in found.ms]),
        memory=found.memory,
        power=power,
    )
