"""A plan: one model on one device, at every precision and budget asked for. Its words are `report.py`'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hired_edge.budget import Budget
from hired_edge.limits import Limits
from hired_edge.manifest import Precision, Target
from hired_edge.planner.devices import Device
from hired_edge.planner.footprint import Fit, Request, footprint, largest_budget
from hired_edge.planner.roofline import Roofline, roofline
from hired_edge.planner.shapes import ModelShape
from hired_edge.planner.storage import Stored, stored

LM_HEAD_TACTIC = 1.5
"""What TensorRT 10.3's tactics for the LM head want of contiguous memory, in sizes of its matrix."""


@dataclass(frozen=True)
class Row:
    """One budget at one precision."""

    budget: Budget
    limits: Limits
    fit: Fit
    roofline: Roofline


@dataclass(frozen=True)
class PrecisionPlan:
    """One precision."""

    precision: Precision
    weights: Stored
    rows: tuple[Row, ...]
    largest: int | None
    """Visual tokens of the largest budget that fits, over all pictures; None where not even 0 does."""
    head_needs_contiguous: int | None
    """Bytes of contiguous memory that a build on JetPack 6 wants for the LM head, where the default has less."""


@dataclass(frozen=True)
class Plan:
    """A model on a device."""

    model: ModelShape
    device: Device
    target: Target
    request: Request
    precisions: tuple[PrecisionPlan, ...]


def plan(
    model: ModelShape,
    device: Device,
    target: Target,
    precisions: Sequence[Precision],
    budgets: Sequence[Budget],
    request: Request,
    block_size: int | None = None,
    *,
    vision: str | None = None,
    embedding: str | None = None,
) -> Plan:
    """Every precision and budget.

    Raises:
        InputError: a precision, block size or embedding that the target does not have, or a number below 1.
        LimitError: a budget beyond the model's positions.
    """
    available = device.memory_bytes - device.system_bytes
    plans = []
    for precision in precisions:
        weights = stored(model, target, precision, block_size, vision=vision, embedding=embedding)
        rows = []
        for budget in budgets:
            limits = request.limits(model, budget)
            taken = footprint(model, target, weights, limits, device.process_bytes)
            rows.append(Row(budget, limits, Fit(taken, available), roofline(model, target, weights, limits)))
        largest = largest_budget(
            model,
            target,
            weights,
            request,
            available=available,
            process_bytes=device.process_bytes,
        )
        contiguous = _contiguous(model, device, target, precision)
        plans.append(PrecisionPlan(precision, weights, tuple(rows), largest, contiguous))
    return Plan(model, device, target, request, tuple(plans))


def _contiguous(model: ModelShape, device: Device, target: Target, precision: Precision) -> int | None:
    if target != "jp6" or precision != "fp16" or device.cma_bytes is None:
        return None
    wanted = int(LM_HEAD_TACTIC * 2 * model.text.head_elements)
    return wanted if wanted > device.cma_bytes else None
