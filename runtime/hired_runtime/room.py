"""Whether a bundle's weights and cache can be in memory at all, asked before they are read.

Linux promises more memory than there is, and ends a process that takes it at its word: without this question, a board
would tell nothing but `Killed`. Only what is known exactly is counted (weights, cache, bound tensors), so that what
fits is never refused; what lives between an engine's operators comes on top (`hired-edge plan` estimates it).
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from fractions import Fraction

from hired_edge.budget import Budget
from hired_edge.errors import OutOfMemoryError
from hired_edge.limits import Limits, resolve_opening
from hired_edge.manifest import Manifest
from hired_edge.plan import MemoryPlan, memory_plan
from hired_runtime.board import meminfo
from hired_runtime.board.machine import Machine

_MIB = 2**20
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Limit, usage, statistics, and what of the usage the kernel drops when it needs to: version 2, and version 1."""


def available_bytes(machine: Machine | None = None) -> int | None:
    """What this process may still take: of the system's memory and swap, its container's limit, and its own (`ulimit
    -v`). None where the system does not say."""
    machine = machine or Machine()
    memory = meminfo.parse(machine.text("/proc/meminfo") or "")
    found = [] if memory is None else [memory.available + memory.swap_free]
    for limit, usage, statistics, droppable in _CGROUPS:
        most, used = (machine.text(path) or "" for path in (limit, usage))
        if most.strip().isdecimal() and used.strip().isdecimal():
            rows = dict(line.split() for line in (machine.text(statistics) or "").splitlines() if line.count(" ") == 1)
            found.append(int(most) - int(used) + int(rows.get(droppable, "0")))
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = (machine.text("/proc/self/statm") or "").split()
    if own != resource.RLIM_INFINITY and pages:
        found.append(own - int(pages[0]) * resource.getpagesize())
    return max(0, min(found)) if found else None


def check_room(manifest: Manifest, limits: Limits, available: int | None) -> None:
    """Passes an opening whose weights, cache and buffers are no more than what is available.

    Raises:
        OutOfMemoryError: they are more; with the largest budget that would fit.
    """
    if available is not None and _needed(memory_plan(manifest, limits)) > available:
        raise _short(manifest, limits, available)


@contextlib.contextmanager
def room_told(manifest: Manifest, limits: Limits, available: int | None) -> Iterator[None]:
    """Says of memory that ran out inside what was needed, what there was before, and which budget would fit."""
    try:
        yield
    except MemoryError:
        raise _short(manifest, limits, available) from None
    except OutOfMemoryError as error:
        raise _short(manifest, limits, available, f"{error.got}: ") from None


def largest_fitting(manifest: Manifest, limits: Limits, available: int) -> tuple[int, int] | None:
    """(percent, visual tokens) of the largest whole percentage below the opening's budget that has room."""
    rules, exported = manifest.vision.tiling, manifest.limits
    for percent in range(100, 0, -1):
        budget = Budget(percent=Fraction(percent))
        visual = budget.max_tokens(rules, limits.images)
        if visual < limits.visual_tokens and visual <= exported.visual_tokens:
            smaller = resolve_opening(exported, rules, visual=budget, batch=limits.batch, images=limits.images)
            if _needed(memory_plan(manifest, smaller)) <= available:
                return percent, visual
    return None


def _needed(plan: MemoryPlan) -> int:
    return plan.weights + plan.kv_cache + plan.buffers


def _short(manifest: Manifest, limits: Limits, available: int | None, reason: str = "") -> OutOfMemoryError:
    plan = memory_plan(manifest, limits)
    parts = f"weights {_mib(plan.weights)}, cache {_mib(plan.kv_cache)}, buffers {_mib(plan.buffers)}"
    opening = (
        f"{reason}{limits.visual_tokens} visual tokens in {limits.batch} rows take {_mib(_needed(plan))} MiB ({parts})"
    )
    if available is None:
        fix = "open with a smaller --visual-tokens, or fewer rows"
        return OutOfMemoryError(opening, expected="room for them", fix=fix)
    fitting = largest_fitting(manifest, limits, available)
    if fitting is not None:
        fix = f"open with --visual-tokens {fitting[0]}% ({fitting[1]} tokens) or less, fewer rows, or free some memory"
    else:
        fix = "free some memory; no smaller budget would fit with as many rows"
    return OutOfMemoryError(opening, expected=f"at most the {_mib(available)} MiB that are available", fix=fix)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f}"
