"""`python -m benchmarks.ray_waiting SECONDS batch ...`: `hired-edge batch --ray` whose workers wait instead of asking.

For `benchmarks.ray_driver`. All else is as it is: workers open the bundle, read their parts and say answers once a
second, of the size of the demonstration model's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from hired_edge import cli
from hired_runtime.batch.requests_file import BadRow, Row
from hired_runtime.pipeline import Pipeline
from hired_runtime.ray_batch import dispatch, worker
from hired_runtime.ray_batch.worker import Job, Worker

_COUNTS = {"prompt_tokens": 1900, "completion_tokens": 2, "total_tokens": 1902, "visual_tokens": 1880}


def waited(
    seconds: float, pipeline: Pipeline | None, rows: Iterable[Row | BadRow], options: Mapping[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `batch.asking.lines`, a row after `seconds` each."""
    due = time.monotonic()
    for row in rows:
        due += seconds
        time.sleep(max(0.0, due - time.monotonic()))
        usage = {**_COUNTS, "cached_tokens": 0}
        yield row.number, {"id": row.id, "text": "472", "finish_reason": "stop", "usage": usage}


def waiting_worker(seconds: float) -> type[Worker]:
    """A worker that takes `seconds` for each row. A class of its own, which Ray sends along with the number in it."""

    class Waiting(Worker):
        """See above."""

        def __init__(self, job: Job, ledger: Any) -> None:
            worker.lines = partial(waited, seconds)
            super().__init__(job, ledger)

    return Waiting


def main() -> int:
    dispatch.Worker = waiting_worker(float(sys.argv[1]))
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
