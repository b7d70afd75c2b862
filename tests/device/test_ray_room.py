"""What a batch on a cluster knows without Ray: how many workers fit, and which of them never have the bundle open."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hired_runtime.ray_batch.cluster import Share, gpus, patiently, reason, room
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


def test_of_what_ray_says_only_the_reason_is_told() -> None:
    """Three errors as Ray 2.60 words them, shortened."""
    died = """The actor died because of an error raised in its creation task, \x1b[36mray::W.__init__()\x1b[39m (pid=1)
  File "/venv/lib/a.py", line 3, in __init__
    import b
           ^
ImportError: cannot import name 'b'
"""
    refused = """Failed to connect to GCS. Last connection error: Traceback (most recent call last):
  File "python/ray/_raylet.pyx", line 3198, in ray._raylet.GcsClient.__cinit__
ray.exceptions.AuthenticationError: InvalidAuthToken: missing or incorrect. Note: RAY_AUTH_MODE is off.
"""
    gone = "The actor died unexpectedly.\n\tclass_name: W\nThe actor is dead."
    assert reason(RuntimeError(died)) == "ImportError: cannot import name 'b'"
    told = "ray.exceptions.AuthenticationError: InvalidAuthToken: missing or incorrect."
    assert reason(RuntimeError(refused)) == told
    assert reason(RuntimeError(gone)) == "The actor died unexpectedly. class_name: W The actor is dead."


def test_what_starts_too_late_is_started_again() -> None:
    late = Exception("The current node timed out during startup. This could happen")

    def tried(*ends: Exception | None) -> tuple[int, int, Exception | None]:
        """How often it was started and what was left cleaned away, and what was raised in the end."""
        starts, cleaned = iter(ends), list[int]()

        def start() -> None:
            if (error := next(starts)) is not None:
                raise error

        raised = None
        try:
            patiently(start, lambda: cleaned.append(1))
        except Exception as error:
            raised = error
        return len(ends) - len(list(starts)), len(cleaned), raised

    other = ValueError()
    assert tried(None) == (1, 0, None)
    assert tried(late, None) == (2, 1, None)
    assert tried(late, late, None) == (3, 2, None)
    assert tried(late, late, late, None) == (3, 2, late)
    assert tried(late, other, None) == (2, 1, other)
