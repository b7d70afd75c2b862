"""One process of a cluster that has the bundle open and answers units of the requests, saying so as it goes on.

Rows are said soon after they are done, and in few bytes: Ray hands what is small to the driver at once, so that it
outlives the machine that it comes from. Whatever is wrong with a machine is said as well, never raised: an exception
would only be a lost unit to the driver. An engine that has failed may leave its process unfit for anything (a CUDA
context that is gone): it ends itself before the next unit, and Ray starts another.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired_edge import __version__
from hired_edge.errors import BundleError, HiredEdgeError, InputError, MissingExtraError
from hired_runtime import model as models
from hired_runtime.batch.asking import lines
from hired_runtime.batch.together import together
from hired_runtime.ray_batch.messages import Said, Unit
from hired_runtime.ray_batch.parts import read_part
from hired_runtime.trust.keys import PublicKey

if TYPE_CHECKING:
    import pyarrow

UNIT, SAID = "unit", "said"
"""Columns: of what comes in, and of what goes out."""

_HOLD_S, _HOLD_BYTES = 1.0, 48 * 1024
"""Ray hands up to 100 KiB over by itself; what is larger stays in the memory of a machine that may be lost."""


@dataclass(frozen=True)
class Job:
    """What every worker has to know. Paths are absolute, and the same on every machine.

    Args:
        bundle: its folder.
        digest: of its manifest.
        requests: the file.
        pictures: some of its pictures, that are there for the driver.
        options: of `Request`, for every row.
        batch: rows at once.
        threads, backend, public_keys: see `hired_runtime.open`.
        version: of hired-edge.
    """

    bundle: str
    digest: str
    requests: str
    pictures: tuple[str, ...]
    options: Mapping[str, Any]
    batch: int
    threads: int
    backend: str | None
    public_keys: tuple[PublicKey, ...] | None
    version: str = __version__


class Worker:
    """What Ray Data makes one of in each process. Opens the bundle at once.

    Args:
        ledger: where starts are counted, see `ledger`; a handle of Ray's.
    """

    def __init__(self, job: Job, ledger: Any) -> None:
        self._job, self._sick, self._silent = job, False, True
        self._model: models.Model | None = None
        self._refusal: HiredEdgeError | None = None
        try:
            self._start(ledger)
        except HiredEdgeError as error:
            self._refusal = _at_home(error)

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Units -> what is said of them."""
        import pyarrow

        if self._sick:
            os._exit(1)
        for text in table[UNIT].to_pylist():
            for said in self._answer(Unit.decoded(text)):
                yield pyarrow.table({SAID: pyarrow.array([said.encoded()], pyarrow.binary())})

    def _start(self, ledger: Any) -> None:
        import ray

        me = ray.get_runtime_context().get_actor_id()
        hopeless = ray.get(ledger.starting.remote(me))
        if hopeless is not None:
            raise BundleError(
                f"a worker: {hopeless}",
                expected="machines with the memory for the bundle, and an engine that runs there",
                fix="try there: hired-edge inspect --measure",
            )
        self._model = self._opened()
        ledger.opened.remote(me)
        self._ledger = ledger

    def _opened(self) -> models.Model:
        job = self._job
        if job.version != __version__:
            raise InputError(
                f"hired-edge {__version__}", expected=f"{job.version}, as the driver has it", fix="install that version"
            )
        for path in (job.requests, *job.pictures):
            if not os.access(path, os.R_OK):
                raise InputError(
                    f"{path} cannot be read",
                    expected="what the driver reads to be readable on every machine, under the same path",
                    fix="put it on a file system that they share",
                )
        try:
            model = models.open(
                job.bundle,
                visual_tokens=job.options["visual_tokens"],
                batch=job.batch,
                threads=job.threads,
                backend=job.backend,
                public_keys=job.public_keys,
            )
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"no module named {error.name}", expected="an engine on every machine", fix="install the extra there"
            ) from None
        if model.pipeline.manifest.digest != job.digest:
            raise BundleError(
                f"{job.bundle} is another bundle than the driver's",
                expected="the same one on every machine",
                fix="copy it there again",
            )
        return model

    def _answer(self, unit: Unit) -> Iterator[Said]:
        if self._model is None:
            yield Said(unit.part.number, "", refused=self._refusal)
            return
        alone = unit.rows[0] if unit.rows is not None and len(unit.rows) == 1 else None
        say = partial(Said, unit.part.number, self._model.pipeline.backend.name, alone)
        if self._silent or alone is not None:  # which engine this is, and what it is at, before anything can happen
            self._silent = False
            yield say()
        done: list[tuple[int, dict[str, Any]]] = []
        size, said_at = 0, time.monotonic()
        try:
            wanted = set(unit.part.rows if unit.rows is None else unit.rows)
            asked = [row for row in read_part(Path(self._job.requests), unit.part) if row.number in wanted]
            for row, line in lines(self._model.pipeline, together(asked), self._job.options):
                done.append((row, line))
                size += len(json.dumps(line))
                if size > _HOLD_BYTES or time.monotonic() - said_at > _HOLD_S:
                    yield say(done)
                    done, size, said_at = [], 0, time.monotonic()
        except InputError as error:
            yield say(done, refused=_at_home(error))
        except HiredEdgeError as error:
            self._sick = True
            yield say(done, failed=_at_home(error))
        else:
            self._ledger.answered.remote()
            yield say(done)


def _at_home(error: HiredEdgeError) -> HiredEdgeError:
    """The same, with the machine that it is about."""
    import ray

    where = f"on {ray.util.get_node_ip_address()}: {error.got}"
    return type(error)(where, expected=error.expected, fix=error.fix)
