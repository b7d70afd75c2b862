"""Hands units to the workers of a cluster by Ray Data, and gives what they say, as it comes.

One worker a GPU, or a share of the processors; Ray Data starts them, starts them again elsewhere when they die, gives
each a unit and the next one ahead, and takes no more than it can place. Units themselves are never tried twice by Ray:
it would bind them to the worker that had them, which may never find a machine again. Who called sees what is missing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Generator, Sequence
from typing import Any

from hired_edge.errors import BundleError, InputError
from hired_runtime.ray_batch.cluster import Share, reason
from hired_runtime.ray_batch.ledger import started_ledger
from hired_runtime.ray_batch.messages import Said, Unit
from hired_runtime.ray_batch.worker import SAID, UNIT, Job, Worker

log = logging.getLogger("hired_runtime.ray_batch")

_SAY_AFTER_S, _SILENCE_S = 60, 1800
"""Without a word of any worker: a line on stderr, and the end."""
_FAILURES = 10
"""Engines that may fail one after the other without one answer in between, beside three for each worker."""


class LostPassError(Exception):
    """Ray itself has given a pass up; what was not said is to be asked again."""


class Dispatch:
    """Args:
    job: what workers have to know.
    share: what each takes.
    workers: how many, at most.
    """

    def __init__(self, job: Job, share: Share, workers: int) -> None:
        self._job, self._share, self._workers = job, share, workers
        self._ledger = started_ledger(workers)

    def run(self, units: Sequence[Unit], *, ahead: bool) -> Generator[Said, None, None]:
        """Hands out every unit once. Units of processes that are lost on the way are missing. To be closed.

        Args:
            ahead: whether a worker may have a second unit waiting, which is lost with it as well.

        Raises:
            HiredEdgeError: a machine that cannot answer, engines that fail again and again, or nobody who says a word.
            LostPassError: Ray has given up; some rows may have been said.
        """
        failures = 0
        dataset = self._dataset(units, min(self._workers, len(units)), 2 if ahead else 1)
        words = "hired-edge: no worker has said anything for %s s: they start, or wait for a machine with room (%s)"
        silence = threading.Timer(_SAY_AFTER_S, log.warning, (words, _SAY_AFTER_S, self._share))
        silence.daemon = True
        silence.start()
        # Closed before Ray is: a pass that is left behind would go on calling it.
        with contextlib.closing(_said(dataset)) as said:
            try:
                for each in said:
                    silence.cancel()
                    if each.refused is not None:
                        raise each.refused
                    failures = 0 if each.lines else failures + (each.failed is not None)
                    if each.failed is not None and failures > _FAILURES + 3 * self._workers:
                        raise each.failed
                    yield each
            finally:
                silence.cancel()

    def _dataset(self, units: Sequence[Unit], workers: int, in_flight: int) -> Any:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1  # a lost unit is no end
        context.execution_no_progress_timeout_s = _SILENCE_S
        context.target_max_block_size = 1  # whatever a worker says is handed on at once
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both restarts below are to be set in another way from Ray 2.64 on
            return ray.data.from_items(
                [{UNIT: unit.encoded()} for unit in units], override_num_blocks=len(units)
            ).map_batches(
                Worker,
                fn_constructor_args=(self._job, self._ledger),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=in_flight),
                num_cpus=self._share.cpus,
                num_gpus=self._share.gpus or None,
                memory=self._share.memory,
                max_restarts=-1,
                max_task_retries=0,
            )


def _said(dataset: Any) -> Generator[Said, None, None]:
    """What comes out of a data set. Closing it ends its execution."""
    batches = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    with contextlib.closing(batches):
        while True:
            try:
                table = next(batches, None)
            except Exception as error:  # of Ray's: no code of ours runs in there
                raise _told(error) from None
            if table is None:
                return
            yield from map(Said.decoded, table[SAID].to_pylist())


def _told(error: Exception) -> Exception:
    if type(error).__name__ == "ExecutionTimeoutError":
        return BundleError(
            f"no worker has said anything for {_SILENCE_S} s",
            expected="a machine with room for one, and an engine that comes back",
            fix="see ray status, and run the same command again: it goes on",
        )
    if "No module named 'hired_" in str(error):
        return InputError(
            "a machine of the cluster has no hired-edge",
            expected="the same version installed on every machine",
            fix="install it there, for the Python that runs Ray",
        )
    return LostPassError(reason(error))
