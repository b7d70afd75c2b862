"""Continuous batching with a prefix cache: requests enter and leave between two steps, each in a row of its own.

A request's prompt is prefilled alone, behind what its row holds of it already, or another row, from which it is
copied; from then on every step decodes one token of every request that runs. Rows do not see each other, but an engine
may round otherwise for another shape: a request's tokens are the ones that it would have alone, or first part from them
at a near-tie of the logits.

One thread at a time. Knows nothing of queues: who waits, and who is told what, is the caller's business.
"""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

import numpy as np

from hired_edge.errors import NumericalError
from hired_runtime.backend import Floats
from hired_runtime.prefix import NOTHING, Names, name_of
from hired_runtime.request import Answer, Request
from hired_runtime.rows import Rows
from hired_runtime.sampling import Sampler
from hired_runtime.text import TextStream
from hired_runtime.timings import Timings

if TYPE_CHECKING:
    from hired_runtime.pipeline import Pipeline, Prepared


class Running:
    """One request that has a row.

    Attributes:
        row: of the cache.
        answer: once it is finished.
        error: why it has none and is not running any more.
    """

    def __init__(self, pipeline: Pipeline, request: Request, prepared: Prepared, timings: Timings, row: int) -> None:
        self.row = row
        self.answer: Answer | None = None
        self.error: NumericalError | None = None
        self._pipeline, self._prepared, self._timings = pipeline, prepared, timings
        self._sampler = Sampler(request.sampling)
        self._stream = TextStream(pipeline.prompt.tokenizer, request.stop)
        self._position = int(prepared.positions[-1])
        self._cached = 0
        self.tokens: list[int] = []
        self._pieces: list[str] = []
        self._told = 0

    def take(self) -> str:
        """The text that has come since it was last taken."""
        pieces, self._told = self._pieces[self._told :], len(self._pieces)
        return "".join(pieces)

    @property
    def next_position(self) -> int:
        """Where the token that was made last stands, once it is fed."""
        return self._position + len(self.tokens)

    def prefill(self, rows: Rows, cached: int) -> None:
        """Writes what the row does not hold of the prompt yet, and makes the first token."""
        prepared, self._cached = self._prepared, cached
        with self._timings.stage("select"):
            embeds = self._pipeline.splice(prepared.prompt, prepared.selections, prepared.gather, cached)
        with self._timings.stage("prefill"):
            start, last = np.array([cached]), np.array([len(embeds) - 1])
            positions = prepared.positions[None, cached:]
            logits = self._pipeline.backend.language.step(embeds[None], start, last, positions, self.row)
            rows.write(self.row, prepared.names[cached:])
            token = self._sampler(logits)
        self._timings.mark("ttft")
        self._push(int(token[0]))

    def decoded(self, logits: Floats, rows: Rows, ms: float) -> None:
        """Takes the logits (1, V) of a step that the last token was fed to, which took `ms`."""
        rows.write(self.row, name_of(self.tokens[-1], self.next_position))
        start = time.perf_counter()
        token = int(self._sampler(logits)[0])
        self._timings.add("decode", ms + 1e3 * (time.perf_counter() - start))
        self._push(token)

    def _push(self, token: int) -> None:
        self.tokens.append(token)
        stopped = token in self._pipeline.manifest.stop_token_ids
        self._pieces.append("" if stopped else self._stream.push(token))
        if stopped or self._stream.stopped or len(self.tokens) == self._prepared.new_tokens:
            self._pieces.append(self._stream.flush())
            self._finish("stop" if stopped or self._stream.stopped else "length")

    def _finish(self, reason: str) -> None:
        timings = self._timings
        timings.mark("total")
        timings.ms.setdefault("decode", 0.0)
        self.answer = Answer(
            text="".join(self._pieces),
            tokens=self.tokens,
            finish_reason=reason,
            selections=self._prepared.selections,
            prompt_tokens=len(self._prepared.prompt.ids),
            limits=self._pipeline.limits,
            timings_ms=timings.ms,
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            cached_tokens=self._cached,
        )


class Batcher:
    """The requests that run on a pipeline. Call it with `turns.lock` held."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._rows = Rows(pipeline.limits.batch)
        self.running: list[Running] = []

    @property
    def free(self) -> int:
        """Requests that could be started now."""
        return len(self._rows.free)

    def start(self, request: Request, timings: Timings | None = None) -> Running:
        """Takes a request in and makes its first token, with which it may be finished.

        Raises:
            InputError, LimitError: the request; whatever runs goes on.
            NumericalError: an engine gives a NaN or an infinity for it. What else runs goes on, if the engine can clean
                a row by itself: `running` says so.
            BundleError: the engine fails. Then nothing runs any more, and the cache is zeros.
        """
        timings = timings or Timings()
        try:
            return self._start(request, timings)
        except NumericalError:
            self._pipeline.encoder_cache.clear()  # it may not be so the next time
            raise

    def _start(self, request: Request, timings: Timings) -> Running:
        prepared = self._pipeline.prepare(request, timings)
        row, own = self._rows.choose(prepared.names)
        running, source = Running(self._pipeline, request, prepared, timings, row), row
        try:
            self._rows.take(row)
            self.running.append(running)
            with timings.stage("prefill"):
                cached, source = self._found(prepared.names, row, own) if request.reuse else (0, row)
                self._rows.hold(row, prepared.names[:cached])
            running.prefill(self._rows, cached)
        except NumericalError:
            if self._lose(running) and source in self._rows.free:  # what was copied may be what is broken
                self._clean(source)
            raise
        except BaseException:
            self._fail()
            raise
        self._retire()
        return running

    def _found(self, names: Names, row: int, own: int) -> tuple[int, int]:
        """How many positions of a prompt are in its row: `own`, or what another row holds more, which is copied; and
        whose they were."""
        most = len(names) - 1  # the last token's logits are needed
        other, shared = self._rows.longest(names)
        shared = min(shared, most)
        if shared > own and self._pipeline.backend.language.copy(other, row, shared):
            return shared, other
        return min(own, most), row

    def step(self) -> None:
        """One more token for every request that runs. One for which the engine gives no numbers has an `error` instead.

        Raises:
            BundleError: the engine fails. Then nothing runs any more, and the cache is zeros.
        """
        if not self.running:
            return
        try:
            self._step()
        except BaseException:
            self._fail()
            raise
        self._retire()

    def drop(self, running: Running) -> None:
        """Gives a request up. What it has written stays, for whoever begins alike."""
        if running in self.running:
            self.running.remove(running)
            self._rows.give_back(running.row)

    def clear(self) -> None:
        """Gives up every request."""
        for running in list(self.running):
            self.drop(running)

    def forget(self) -> None:
        """Gives up every request, and nothing that the cache holds counts any more."""
        self.running = []
        self._rows = Rows(self._pipeline.limits.batch)

    def _step(self) -> None:
        """Decodes the rows from the first to the last that runs. One between them that does not is fed a zero behind
        what it holds, where whoever gets it next will write."""
        by_row = {running.row: running for running in self.running}
        first, last = min(by_row), max(by_row)
        rows = range(first, last + 1)
        clock = time.perf_counter()
        starts = np.array([self._rows.filled(row) for row in rows])
        positions = starts.copy()
        embeds = np.zeros((len(rows), 1, self._pipeline.manifest.text.hidden_size), np.float32)
        busy = [row - first for row in by_row]
        embeds[busy, 0] = self._pipeline.embedding.rows(np.array([each.tokens[-1] for each in by_row.values()]))
        positions[busy] = [each.next_position for each in by_row.values()]
        zeros = np.zeros(len(rows), np.int64)
        logits = self._pipeline.backend.language.step(embeds, starts, zeros, positions[:, None], first)
        ms = 1e3 * (time.perf_counter() - clock)
        for row, running in by_row.items():
            try:
                running.decoded(logits[row - first : row - first + 1], self._rows, ms)
            except NumericalError as error:
                running.error = error
        for running in by_row.values():
            if running.error is not None and not self._lose(running):
                raise running.error

    def _retire(self) -> None:
        for running in [each for each in self.running if each.answer is not None]:
            self.drop(running)

    def _lose(self, running: Running) -> bool:
        """Ends a request whose row holds a NaN, which no other row has seen. False: all are ended, since the engine
        cannot clean a row by itself."""
        if not self._clean(running.row):
            return False
        self.drop(running)
        return True

    def _clean(self, row: int) -> bool:
        """Nothing is in the row any more. False, and all requests are ended, if the engine cannot do that."""
        try:
            cleaned = self._pipeline.backend.language.reset_row(row)
        except BaseException:
            self._fail()
            raise
        if not cleaned:
            self._fail()
            return False
        self._rows.hold(row, NOTHING)
        return True

    def _fail(self) -> None:
        """Whatever was half-written, a NaN even, must not be seen by the next request."""
        self.forget()
        self._pipeline.backend.language.reset()
