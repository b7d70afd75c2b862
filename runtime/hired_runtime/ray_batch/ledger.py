"""How often workers begin to open the bundle, how often they come to an end with it, and whether one has answered.

An actor of its own beside the driver: a process that dies while it opens the bundle, or at whatever it is given, cannot
count that itself, and Ray would start it again for ever. Knows no Ray but for where it is placed.
"""

from __future__ import annotations

from typing import Any

_OPENINGS = 3
"""Of a worker, that may fail in a row."""
_DEATHS = 100
"""Of all workers, beside the first start of each, without one answer in between."""


class Ledger:
    """The actor.

    Args:
        workers: that there are to be at a time.
    """

    def __init__(self, workers: int) -> None:
        self._workers, self._since_answer = workers, 0
        self._openings: dict[str, int] = {}

    def starting(self, worker: str) -> str | None:
        """A process begins. What should keep it from it, if anything.

        Args:
            worker: Ray's id of its actor, which stays when its process is started again.
        """
        self._since_answer += 1
        self._openings[worker] = openings = self._openings.get(worker, 0) + 1
        if openings > _OPENINGS:
            return f"its process has died {openings - 1} times while it opened the bundle"
        if self._since_answer > self._workers + _DEATHS:
            return f"{self._since_answer - self._workers} processes have died without one answer in between"
        return None

    def opened(self, worker: str) -> None:
        """Its process has the bundle open."""
        self._openings[worker] = 0

    def answered(self) -> None:
        """Some worker has answered something."""
        self._since_answer = 0


def started_ledger(workers: int) -> Any:
    """A handle of the actor, on the driver's own machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote(workers)
