"""picture -> tiles -> vision engine -> allocate -> select -> splice -> prefill -> decode, in that order, each timed.

One request at a time, one row: batches and conversations that reuse a prefix are not here yet.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from hired_edge.budget import Budget
from hired_edge.bundle import Bundle
from hired_edge.limits import Limits, check_request
from hired_edge.packing import newline_policy
from hired_edge.selection import Selection, select
from hired_edge.tiling import tile
from hired_runtime.backend import AttentionMaps, Backend, Floats
from hired_runtime.embedding import Embedding
from hired_runtime.generation import Generation, Turns
from hired_runtime.pictures import load_picture
from hired_runtime.preprocess import pixel_values
from hired_runtime.prompt import EncodedPrompt, PromptTemplate
from hired_runtime.request import Answer, Request
from hired_runtime.sampling import Sampler, SamplingOptions
from hired_runtime.text import TextStream

STAGES = ("preprocess", "vision", "select", "prefill", "decode")


@dataclass
class Timings:
    """Milliseconds by stage; `ttft` and `total` count from the start of the request."""

    started: float = field(default_factory=time.perf_counter)
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + 1e3 * (time.perf_counter() - start)

    def mark(self, name: str) -> None:
        self.ms[name] = 1e3 * (time.perf_counter() - self.started)


class Pipeline:
    """An opened bundle's engines, prompt and tables, put together. `hired_runtime.open` makes one."""

    def __init__(self, bundle: Bundle, limits: Limits, backend: Backend, default_budget: Budget) -> None:
        manifest = bundle.manifest
        self.bundle, self.manifest, self.limits, self.backend = bundle, manifest, limits, backend
        self._default_budget = default_budget
        self._embedding = Embedding(bundle)
        self.prompt = PromptTemplate.open(bundle.root, manifest.prompt, image_token=manifest.image_token)
        self._turns = Turns()

    def generate(self, request: Request) -> Generation:
        """Starts a request; work is done as the generation is iterated.

        Raises (while iterating): InputError, LimitError.
        """
        return Generation(self._run(request), self._turns)

    def look(self, request: Request) -> list[Selection]:
        """The first half of a request: which visual tokens of its pictures would be kept."""
        with self._turns.lock:  # the vision engine holds one request's features
            return self._look(request, Timings())

    def _look(self, request: Request, timings: Timings) -> list[Selection]:
        budget = request.budget or self._default_budget
        with timings.stage("preprocess"):
            pictures = [load_picture(source) for source in request.images]
            tilings = [tile(picture.height, picture.width, self.manifest.vision.tiling) for picture in pictures]
            for tiling in tilings:
                newline_policy(tiling, request.newlines)  # a family without rows refuses kept rows
            tiles = max((tiling.tiles for tiling in tilings), default=1)
            visual = budget.tokens(tilings) if tilings else 0
            check_request(self.limits, visual=visual, text=0, new=0, images=len(pictures), tiles=tiles)
            rules = self.manifest.vision.preprocess
            pixels = [pixel_values(*each, rules) for each in zip(pictures, tilings, strict=True)]
        with timings.stage("vision"):
            maps: list[AttentionMaps] = [self.backend.vision.encode(each, slot) for slot, each in enumerate(pixels)]
        with timings.stage("select"):
            return select(
                tilings,
                [each.allocation for each in maps],
                [each.selection for each in maps],
                budget,
                policy=request.policy,
                alpha=request.alpha,
                newlines=request.newlines,
            )

    def _run(self, request: Request) -> Generator[str, None, Answer]:
        timings = Timings()
        stream = TextStream(self.prompt.tokenizer, request.stop)
        new_tokens = self.limits.new_tokens if request.max_new_tokens is None else request.max_new_tokens
        with timings.stage("preprocess"):
            prompt = self.prompt.render(request.messages, pictures=len(request.images))
            check_request(self.limits, visual=0, text=len(prompt.ids), new=new_tokens, images=len(request.images))
        selections = self._look(request, timings)
        with timings.stage("select"):
            embeds = self._splice(prompt, selections)
        tokens: list[int] = []
        text: list[str] = []
        stopped = False
        try:
            for token in self._decode(embeds, request.sampling, new_tokens, timings):
                tokens.append(token)
                stopped = token in self.manifest.stop_token_ids
                piece = stream.flush() if stopped else stream.push(token)
                if piece:
                    text.append(piece)
                    yield piece
                if stopped or stream.stopped:
                    break
            if piece := stream.flush():
                text.append(piece)
                yield piece
        except GeneratorExit:
            raise  # a reader that stops listening: the cache is sound, the next request writes over it
        except BaseException:
            # Whatever was half-written, a NaN even, must not be seen by the next request.
            self.backend.language.reset()
            raise
        timings.mark("total")
        timings.ms.setdefault("decode", 0.0)
        return Answer(
            text="".join(text),
            tokens=tokens,
            finish_reason="stop" if stopped or stream.stopped else "length",
            selections=selections,
            prompt_tokens=len(prompt.ids),
            limits=self.limits,
            timings_ms=timings.ms,
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )

    def _splice(self, prompt: EncodedPrompt, selections: list[Selection]) -> Floats:
        """(1, S, D): text embeddings with each picture's kept features and newlines in its place."""
        text = self._embedding.rows(prompt.ids)
        parts, done = [], 0
        for slot, (at, selection) in enumerate(zip(prompt.splices, selections, strict=True)):
            visual = self.backend.vision.gather(selection.gather, slot)  # -1 gathers a row that is overwritten next
            visual[selection.gather < 0] = self._embedding.newline
            parts += [text[done:at], visual]
            done = at
        return np.concatenate([*parts, text[done:]])[None]

    def _decode(self, embeds: Floats, options: SamplingOptions, count: int, timings: Timings) -> Iterator[int]:
        """Prefill, then one step a token: at most `count` tokens."""
        sampler, language = Sampler(options), self.backend.language
        length = embeds.shape[1]
        with timings.stage("prefill"):
            logits = language.step(embeds, np.array([0]), np.array([length - 1]))
            token = int(sampler(logits)[0])
        timings.mark("ttft")
        for position in range(length, length + count):
            yield token
            if position == length + count - 1:
                return
            with timings.stage("decode"):
                step = self._embedding.rows(np.array([token]))[None]
                logits = language.step(step, np.array([position]), np.array([0]))
                token = int(sampler(logits)[0])
