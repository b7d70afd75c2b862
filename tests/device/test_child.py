"""A function in a process of its own: what it reports, how it ends, and which errors come back as they were."""

from __future__ import annotations

import importlib

import pytest

from hired_edge.child import call, call_reporting
from hired_edge.errors import HiredEdgeError
from tests.tiny.children import count


def died(status: int) -> HiredEdgeError:
    return HiredEdgeError(f"it ended with {status}", expected="an answer", fix="try again")


def test_reports_come_in_order_before_the_answer() -> None:
    seen: list[int] = []
    assert call_reporting(count, (5, -1), seen.append, died=died) == "done"
    assert seen == [0, 1, 2, 3, 4]


def test_what_was_reported_before_a_death_has_come() -> None:
    seen: list[int] = []
    with pytest.raises(HiredEdgeError, match="it ended with 3; expected an answer; try again"):
        call_reporting(count, (5, 3), seen.append, died=died)
    assert seen == [0, 1, 2]


def test_a_missing_module_is_named_here() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        call(importlib.import_module, "no_such_engine", died=died)
    assert caught.value.name == "no_such_engine"
