"""picture -> tiles -> vision engine -> allocate -> select -> splice -> prefill -> decode, in that order, each timed.

One request at a time, one row: batches and conversations that reuse a prefix are not here yet.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hired_edge.budget import Budget, parse_alpha, parse_budget
from hired_edge.bundle import Bundle
from hired_edge.errors import InputError
from hired_edge.limits import Limits, check_request
from hired_edge.policies import POLICIES
from hired_edge.selection import Selection, select
from hired_edge.tiling import tile
from hired_runtime.backend import AttentionMaps, Backend, Floats
from hired_runtime.embedding import Embedding
from hired_runtime.pictures import PictureSource, load_picture
from hired_runtime.preprocess import pixel_values
from hired_runtime.prompt import EncodedPrompt, PromptTemplate
from hired_runtime.sampling import Sampler, SamplingOptions
from hired_runtime.text import TextStream

STAGES = ("preprocess", "vision", "select", "prefill", "decode")


@dataclass(frozen=True)
class Request:
    """What is asked of a model, and how. None = the opening's own budget, or the family's own newline policy.

    Args:
        messages: chat messages; a content is a string or a list of text and image parts.
        images: one picture for each image part, in order.
        visual_tokens: budget over all pictures, at most what the bundle was opened with.
        policy, alpha, newlines: how visual tokens are chosen.
        max_new_tokens: at most what the bundle was opened with; None = that.
        sampling: greedy by default.
        stop: strings that end the answer and are not part of it.

    Raises:
        InputError: a budget or alpha that is none, policy "full" with a smaller budget, no token to be made.
    """

    messages: Sequence[Mapping[str, Any]]
    images: Sequence[PictureSource] = ()
    visual_tokens: Budget | str | int | None = None
    policy: str = "hired"
    alpha: float = 0.5
    newlines: str | None = None
    max_new_tokens: int | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    stop: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Here, because opening a bundle may take a minute and a vision engine a second.
        parse_alpha(self.alpha)
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(
                f"max_new_tokens {self.max_new_tokens}", expected="1 or more", fix="pass another --max-new-tokens"
            )
        budget, policy = self.budget, POLICIES.get(self.policy)
        if policy is not None and policy.stock and budget is not None and not budget.is_stock:
            raise InputError(
                f"policy {self.policy!r} with a budget of {budget}",
                expected="one of the two: this policy keeps every visual token, whatever the budget",
                fix="leave out --visual-tokens, or pass another --policy",
            )

    @property
    def budget(self) -> Budget | None:
        """`visual_tokens`, read."""
        asked = self.visual_tokens
        return parse_budget(asked) if isinstance(asked, (str, int)) else asked


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


@dataclass(frozen=True, eq=False)
class Answer:
    """A finished request.

    Args:
        text: what was generated, stop strings removed.
        tokens: generated token ids, a stop token included.
        finish_reason: "stop" (a stop token or string) or "length".
        selections: one a picture.
        prompt_tokens: text positions of the prompt, visual tokens not counted.
        limits: what the bundle was opened with.
        timings_ms: by stage, and `ttft`, `total`.
        peak_memory_mb: of the process so far, MiB.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    selections: list[Selection]
    prompt_tokens: int
    limits: Limits
    timings_ms: dict[str, float]
    peak_memory_mb: float

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first, by the time of the decode steps; None where there was no such step."""
        steps = len(self.tokens) - 1
        return 1e3 * steps / self.timings_ms["decode"] if steps > 0 and self.timings_ms["decode"] > 0 else None


class Generation:
    """An answer being made: iterate over its text as it comes, then read `answer`."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def answer(self) -> Answer:
        """The finished answer; runs the rest of the generation if it was not consumed."""
        for _ in self._pieces:
            pass
        assert self._answer is not None, "the generation ended in an error"
        return self._answer


class Pipeline:
    """An opened bundle's engines, prompt and tables, put together. `hired_runtime.open` makes one."""

    def __init__(self, bundle: Bundle, limits: Limits, backend: Backend, default_budget: Budget) -> None:
        manifest = bundle.manifest
        self.bundle, self.manifest, self.limits, self.backend = bundle, manifest, limits, backend
        self._default_budget = default_budget
        self._embedding = Embedding(bundle)
        self.prompt = PromptTemplate.open(bundle.root, image_token=manifest.image_token)

    def generate(self, request: Request) -> Generation:
        """Starts a request; work is done as the generation is iterated.

        Raises (while iterating): InputError, LimitError.
        """
        generation: Generation
        generation = Generation(self._run(request, lambda answer: setattr(generation, "_answer", answer)))
        return generation

    def look(self, request: Request, timings: Timings | None = None) -> list[Selection]:
        """The first half of a request: which visual tokens of its pictures would be kept."""
        timings = timings or Timings()
        budget = request.budget or self._default_budget
        with timings.stage("preprocess"):
            pictures = [load_picture(source) for source in request.images]
            tilings = [tile(picture.height, picture.width, self.manifest.vision.tiling) for picture in pictures]
            # Before anything is run; what was selected is checked again afterwards (policy "full" ignores the budget).
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

    def _run(self, request: Request, finish: Any) -> Iterator[str]:
        timings = Timings()
        stream = TextStream(self.prompt.tokenizer, request.stop)
        new_tokens = self.limits.new_tokens if request.max_new_tokens is None else request.max_new_tokens
        with timings.stage("preprocess"):
            prompt = self.prompt.render(request.messages, pictures=len(request.images))
            check_request(self.limits, visual=0, text=len(prompt.ids), new=new_tokens, images=len(request.images))
        selections = self.look(request, timings)
        visual = sum(selection.visual_tokens for selection in selections)
        check_request(self.limits, visual=visual, text=len(prompt.ids), new=new_tokens)
        with timings.stage("select"):
            embeds = self._splice(prompt, selections)
        tokens: list[int] = []
        text: list[str] = []
        reason = "length"
        try:
            for token in self._decode(embeds, request.sampling, new_tokens, timings):
                tokens.append(token)
                stopped = token in self.manifest.stop_token_ids
                piece = stream.flush() if stopped else stream.push(token)
                if piece:
                    text.append(piece)
                    yield piece
                if stopped or stream.stopped:
                    reason = "stop"
                    break
            if reason == "length" and (piece := stream.flush()):
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
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        prompt_tokens = len(prompt.ids)
        finish(Answer("".join(text), tokens, reason, selections, prompt_tokens, self.limits, timings.ms, peak))

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
