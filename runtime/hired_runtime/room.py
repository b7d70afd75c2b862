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
from pathlib import PurePosixPath
from typing import NamedTuple

from hired_edge.budget import Budget
from hired_edge.errors import OutOfMemoryError
from hired_edge.limits import Limits, resolve_opening
from hired_edge.manifest import Manifest
from hired_edge.plan import MemoryPlan, memory_plan
from hired_runtime.board import meminfo
from hired_runtime.board.machine import Machine

_MIB = 2**20


class _ControlGroups(NamedTuple):
    """Files of a version of them: the limit, the usage, and what of the usage (memory.stat) the kernel drops when it
    needs to. The pages of a bundle that was hashed, or opened before, are among that."""

    top: str
    limit: str
    usage: str
    droppable: tuple[str, ...]


_CONTROL_GROUPS = {
    "": _ControlGroups(
        "/sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")
    ),
    "memory": _ControlGroups(
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}
"""Version 2, and version 1, by what /proc/self/cgroup calls them."""


def available_bytes(machine: Machine | None = None) -> int | None:
    """What this process may still take: of the system's memory and swap, the limit of its service or container, and its
    own (`ulimit -v`). None where the system does not say."""
    machine = machine or Machine()
    memory = meminfo.parse(machine.text("/proc/meminfo") or "")
    found = [] if memory is None else [memory.available + memory.swap_free]
    found += _left_in_control_groups(machine, 0 if memory is None else memory.swap_free)
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = (machine.text("/proc/self/statm") or "").split()
    if own != resource.RLIM_INFINITY and pages:
        found.append(own - int(pages[0]) * resource.getpagesize())
    return max(0, min(found)) if found else None


def _left_in_control_groups(machine: Machine, swap_free: int) -> Iterator[int]:
    """What the process's control group may still take, and each of those around it that has a limit: a service's, or a
    container's, which is the outermost that its processes see."""
    for line in ("0::/", "0:memory:/", *(machine.text("/proc/self/cgroup") or "").splitlines()):
        _, controllers, path = line.split(":", 2)
        groups = _CONTROL_GROUPS.get("memory" if "memory" in controllers.split(",") else controllers)
        if groups is not None:
            for folder in (PurePosixPath(path), *PurePosixPath(path).parents):
                yield from _left_in(machine, groups, f"{groups.top}{folder}", swap_free)


def _left_in(machine: Machine, groups: _ControlGroups, folder: str, swap_free: int) -> Iterator[int]:
    def number(name: str) -> int | None:
        text = (machine.text(f"{folder}/{name}") or "").strip()
        return int(text) if text.isdecimal() else None

    most, used = number(groups.limit), number(groups.usage)
    if most is None or used is None:
        return
    lines = (machine.text(f"{folder}/memory.stat") or "").splitlines()
    rows = dict(line.split() for line in lines if line.count(" ") == 1)
    swap = 0
    if machine.text(f"{folder}/memory.swap.max") is not None:  # what is swapped out is not in the usage
        swap_most, swap_used = number("memory.swap.max"), number("memory.swap.current") or 0
        swap = swap_free if swap_most is None else max(0, min(swap_free, swap_most - swap_used))
    yield most - used + swap + sum(int(rows.get(name, "0")) for name in groups.droppable)


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
