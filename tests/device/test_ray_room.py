"""What a batch on a cluster knows without Ray: how many workers fit, and which of them never have the bundle open."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hired_runtime.ray_batch.cluster import Share, gpus, room
from hired_runtime.ray_batch.ledger import Ledger
from hired_runtime.ray_batch.parts import FEWEST, MOST, rows_of_a_part

node = st.fixed_dictionaries(
    {
        "Alive": st.booleans(),
        "Resources": st.fixed_dictionaries(
            {}, optional={"CPU": st.integers(0, 9), "GPU": st.integers(0, 3), "memory": st.integers(0, 100)}
        ),
    }
)


@given(st.lists(node), st.builds(Share, st.integers(1, 4), st.integers(0, 2), st.integers(1, 30)))
def test_as_many_workers_fit_as_a_loop_can_place(nodes: list[dict[str, Any]], share: Share) -> None:
    placed = 0
    for each in nodes:
        left = dict(each["Resources"])
        while each["Alive"] and all(
            left.get(name, 0) >= amount
            for name, amount in (("CPU", share.cpus), ("GPU", share.gpus), ("memory", share.memory))
        ):
            placed += 1
            for name, amount in (("CPU", share.cpus), ("GPU", share.gpus), ("memory", share.memory)):
                left[name] = left.get(name, 0) - amount
    assert room(nodes, share) == placed
    assert gpus(nodes) == sum(each["Resources"].get("GPU", 0) for each in nodes if each["Alive"])


@given(st.integers(1, 10**9))
def test_parts_are_a_thousandth_within_their_limits(count: int) -> None:
    rows = rows_of_a_part(count)
    assert FEWEST <= rows <= MOST
    assert rows in (FEWEST, MOST) or math.ceil(count / rows) <= 1000


def test_workers_that_die_while_they_open_or_before_they_answer_are_stopped() -> None:
    ledger = Ledger(2)
    assert [ledger.starting("a") for _ in range(3)] == [None] * 3
    assert ledger.starting("b") is None
    assert ledger.starting("a") == "its process has died 3 times while it opened the bundle"
    ledger.opened("a")
    assert ledger.starting("a") is None
    ledger.answered()
    for worker in map(str, range(102)):
        assert ledger.starting(worker) is None
    assert ledger.starting("c") == "101 processes have died without one answer in between"
    ledger.answered()
    assert ledger.starting("d") is None
