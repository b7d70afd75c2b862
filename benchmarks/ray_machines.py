"""A real Ray cluster of several nodes on this machine: each is a raylet of its own, with workers of its own.

For the benchmark and for tests. Nodes share the machine's processors, whatever they say they have.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from hired_runtime.ray_batch.cluster import Started, patiently

OBJECTS_BYTES = 100 * 2**20
_PATIENCE_S = 120


@dataclass(frozen=True)
class Machines:
    """A running cluster: a head without processors, where drivers run, and its nodes."""

    inner: Any
    nodes: list[Any]

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self.inner.address

    def add(self, cpus: int = 1, gpus: int = 0) -> None:
        """One more node. GPUs need not be there: Ray counts what it is told."""
        what = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": OBJECTS_BYTES}
        self.nodes.append(started(lambda: self.inner.add_node(**what)))

    def kill(self, number: int) -> None:
        """SIGKILL to every process of a node at once, as if its plug were pulled."""
        node = self.nodes[number]
        for pid in _processes(node):
            os.kill(pid, signal.SIGKILL)
        self.inner.remove_node(node, allow_graceful=False)

    def workers(self, number: int) -> list[int]:
        """Processes on a node that answer a batch."""
        return [pid for pid in _processes(self.nodes[number]) if is_worker(pid)]


@contextlib.contextmanager
def machines(count: int, cpus: int = 1, gpus: int = 0) -> Iterator[Machines]:
    """A head and `count` nodes; nothing of it is left at the end.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report these clusters to its makers
    from ray.cluster_utils import Cluster

    before = set(_below(os.getpid()))
    folder = tempfile.mkdtemp(prefix="hired-edge-ray-")
    head = {"num_cpus": 0, "object_store_memory": OBJECTS_BYTES, "include_dashboard": False, "temp_dir": folder}
    inner = started(lambda: Cluster(initialize_head=True, head_node_args=head))
    found = Machines(inner, [])
    try:
        for _ in range(count):
            found.add(cpus, gpus)
        yield found
    finally:
        inner.shutdown()
        end = time.monotonic() + _PATIENCE_S
        while left := set(_below(os.getpid())) - before:
            assert time.monotonic() < end, left
            time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def started(start: Callable[[], Started]) -> Started:
    """What `start` gives, which may be late on a busy machine; nothing is left of what was."""
    before = set(_below(os.getpid()))

    def clean() -> None:
        for pid in set(_below(os.getpid())) - before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    return patiently(start, clean)


def is_worker(pid: int) -> bool:
    """Whether a process answers a batch: Ray writes so into its command line."""
    try:
        return "MapWorker" in " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False


def _processes(node: Any) -> list[int]:
    own = [each.process.pid for group in node.all_processes.values() for each in group]
    return sorted({*own, *(child for pid in own for child in _below(pid))})


def _below(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    try:
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
