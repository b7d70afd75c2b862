"""Runs a batch on a cluster: what can be refused is refused first, then passes over what is missing until nothing is.

A unit is lost with the process that had it. The first passes hand out whole parts; what two of them have lost is asked
row by row, so that a row that kills its process (a picture that crashes a decoder, one that takes all memory) is known
for certain: killed twice more, it is an error row. A machine that was lost costs another pass over its units.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hired_edge.bundle import read_manifest
from hired_edge.errors import BundleError, HiredEdgeError, InputError
from hired_edge.manifest import Manifest
from hired_runtime.batch.progress import Show
from hired_runtime.batch.requests_file import Requests
from hired_runtime.batch.runner import Summary, checked_rows, identity
from hired_runtime.ray_batch.cluster import Share, check_installed, cluster, gpus, room
from hired_runtime.ray_batch.dispatch import Dispatch, LostPassError
from hired_runtime.ray_batch.messages import Said, Unit
from hired_runtime.ray_batch.parquet_requests import ParquetRequests, is_parquet
from hired_runtime.ray_batch.parts import Cut, cut, read_part, rows_of_a_part
from hired_runtime.ray_batch.parts_folder import PartsFolder
from hired_runtime.ray_batch.worker import Job
from hired_runtime.ray_memory import process_bytes
from hired_runtime.request import Request
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.signatures import trusted

TOGETHER, MOST = 2, 10
"""Passes with whole parts, and passes in all."""
_TRIES = 2
"""How often a row may end its process when it was asked alone."""
_LOST_PASSES = 3


def answer_on_cluster(
    bundle: str | os.PathLike[str],
    requests: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: Mapping[str, Any],
    *,
    address: str,
    workers: int | None = None,
    part_rows: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    backend: str | None = None,
    public_keys: Sequence[PublicKey] | None = None,
    restart: bool = False,
    show: Show = lambda done, total, errors: None,
) -> Summary:
    """Answers every row of a file of requests on a Ray cluster, and goes on from what an earlier call has answered.

    Args:
        bundle: its folder, the same on every machine.
        requests: JSON lines or Parquet (by its name), with the pictures readable on every machine under one path.
        output: a folder, see `parts_folder`; only this process writes there.
        options: of `Request`, for every row; `sampling` among them.
        address: see `cluster`.
        workers: processes that answer; None = one a GPU if the bundle is for one, else one for each `threads` CPUs,
            as far as the machines' memory goes.
        part_rows: rows that are handed out and written together; None = a thousandth of all, 32 to 1,024.
        batch: rows at once in a worker; None = as exported, at most 8.
        threads: of an engine, and CPUs that a worker takes; None = 1.
        backend, public_keys: see `hired_runtime.open`.
        restart: throw away what an earlier call has left.
        show: progress.

    Raises:
        InputError: an option, a file of requests or a place that cannot be used, or answers of another run there:
            before Ray is asked for anything. A cluster that cannot be reached or has no room; a machine that cannot
            read what the driver reads.
        LimitError: a budget, a batch or an answer over what was exported.
        BundleError: the bundle cannot be opened on a machine, or engines fail again and again. What was answered is
            kept.
        KeyboardInterrupt: with a line that says what was answered.
        ModuleNotFoundError: the `ray` extra is not installed.
    """
    check_installed()
    Request((), **options)
    keys = None if public_keys is None else tuple(public_keys)
    manifest = read_manifest(Path(bundle), trusted(keys))
    rows_at_once = checked_rows(manifest, options, batch)
    path = Path(os.path.abspath(requests))
    with (ParquetRequests if is_parquet(path) else Requests)(path) as asked:
        size = part_rows or rows_of_a_part(asked.count)
        known = {**identity(manifest, asked, options), "part_rows": size}
        parts = cut(asked, size)
        with PartsFolder(Path(output), known, parts.parts, integers=parts.integers, restart=restart) as folder:
            if folder.finished:
                return Summary(asked.count, folder.held, folder.errors, 0, 0.0, None)
            job = Job(
                os.path.abspath(bundle),
                manifest.digest,
                str(path),
                parts.pictures,
                options,
                rows_at_once,
                threads or 1,
                backend,
                keys,
            )
            share = _share(manifest, options, rows_at_once, threads or 1)
            try:
                with cluster(address):
                    return _Run(job, folder, known, asked.count, parts, show).answer(share, workers)
            except KeyboardInterrupt:
                kept = f"{folder.held} of {asked.count} rows are answered; the same command goes on from there"
                raise KeyboardInterrupt(kept) from None


class _Run:
    """One call's way through the passes."""

    def __init__(
        self, job: Job, folder: PartsFolder, known: Mapping[str, Any], count: int, parts: Cut, show: Show
    ) -> None:
        self._job, self._folder, self._known, self._count = job, folder, known, count
        self._parts, self._show = parts.parts, show
        self._engine: str | None = None
        self._started: float | None = None
        self._tries: Counter[int] = Counter()
        self._failed: dict[int, HiredEdgeError] = {}

    def answer(self, share: Share, workers: int | None) -> Summary:
        before = self._folder.held
        self._show(before, self._count, 0)
        share, workers = _placed(share, workers)
        dispatch = Dispatch(self._job, share, workers)
        number = lost = 0
        while number < MOST and (units := self._units(number)):
            try:
                self._pass(dispatch, units, number)
                number += 1
            except LostPassError as error:
                lost += 1
                if lost == _LOST_PASSES:
                    raise BundleError(
                        f"Ray has given up {lost} times ({error})",
                        expected="a cluster that stays",
                        fix="see its logs, and run the same command again: it goes on",
                    ) from None
        self._refuse_the_rest()
        seconds = time.perf_counter() - (self._started or time.perf_counter())
        self._folder.finish()
        now = self._count - before
        held, errors = self._folder.held, self._folder.errors
        return Summary(self._count, held, errors, now, round(seconds, 3), round(now / seconds, 3) if seconds else None)

    def _units(self, number: int) -> list[Unit]:
        left = self._folder.left()
        if number < TOGETHER:
            return [Unit(part, rows) for part, rows in left]
        return [Unit(part, [row]) for part, rows in left for row in rows or part.rows if self._tries[row] < _TRIES]

    def _pass(self, dispatch: Dispatch, units: Sequence[Unit], number: int) -> None:
        with contextlib.closing(dispatch.run(units, ahead=number < TOGETHER)) as said:
            for each in said:
                self._take(each, alone=number >= TOGETHER)

    def _take(self, said: Said, *, alone: bool) -> None:
        self._begin(said.engine)
        for row, line in said.lines:
            self._folder.add(said.part, row, line)
        if said.lines:
            self._show(self._folder.held + self._folder.errors, self._count, self._folder.errors)
        if alone and said.alone is not None:
            if said.failed is not None:
                self._failed[said.alone] = said.failed
            elif not said.lines:
                self._tries[said.alone] += 1

    def _begin(self, engine: str) -> None:
        if self._engine is None:
            self._folder.begin({**self._known, "engine": engine})
            self._engine, self._started = engine, time.perf_counter()  # the first bundle is open
        elif engine != self._engine:
            raise InputError(
                f"engine {engine} on one machine", expected=f"{self._engine}, as on another", fix="pass --backend"
            )

    def _refuse_the_rest(self) -> None:
        """What has ended its process each time that it was asked."""
        left = list(self._folder.left())
        if left and self._engine is None:  # not one worker has lived long enough to say a word
            self._folder.begin({**self._known, "engine": ... if self._folder.resumed else "unknown"})
        for part, numbers in left:
            ids = {row.number: row.id for row in read_part(Path(self._job.requests), part)}
            for row in numbers or part.rows:
                failed = self._failed.get(row)
                why = "the process that was to answer it has died" if failed is None else failed.got
                reason = f"{why}, each time that it was asked; expected an answer"
                self._folder.add(part.number, row, {"id": ids[row], "error": reason})
        self._show(self._folder.held + self._folder.errors, self._count, self._folder.errors)


def _placed(share: Share, workers: int | None) -> tuple[Share, int]:
    """What a worker takes on this cluster, and how many there are to be.

    Raises:
        InputError: there is no room for one, and nobody has said that there will be.
    """
    import ray

    nodes = ray.nodes()
    share = share if gpus(nodes) else share._replace(gpus=0)
    fit = room(nodes, share)
    if workers is None and not fit:
        cpus = max((node["Resources"].get("CPU", 0) for node in nodes if node["Alive"]), default=0)
        memory = max((node["Resources"].get("memory", 0) for node in nodes if node["Alive"]), default=0)
        raise InputError(
            f"no machine of the cluster has {share}; the largest has {cpus:.0f} CPU, {memory / 2**20:.0f} MiB",
            expected="room for one worker",
            fix="pass another --threads or --visual-tokens, or --workers N where machines come on demand",
        )
    return share, workers or fit


def _share(manifest: Manifest, options: Mapping[str, Any], batch: int, threads: int) -> Share:
    """What a worker takes, on a cluster with GPUs."""
    memory = process_bytes(manifest, options["visual_tokens"], batch)
    return Share(cpus=threads, gpus=0 if manifest.target == "cpu" else 1, memory=memory)
