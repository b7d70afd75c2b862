"""picture -> tiles -> vision engine -> allocate -> select -> splice -> prefill -> decode, in that order, each timed.

A request is one row. `see`, `splice` and `decode` are steps of their own for whoever puts several rows together
(`hired_runtime.evaluation`). Conversations that reuse a prefix are not here yet.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from hired_edge.budget import Budget
from hired_edge.bundle import Bundle
from hired_edge.limits import Limits, check_request
from hired_edge.merging import merge_rows
from hired_edge.packing import newline_policy
from hired_edge.selection import Selection, select
from hired_edge.tiling import Tiling, tile
from hired_runtime.backend import AttentionMaps, Backend, Floats, Ints
from hired_runtime.embedding import Embedding
from hired_runtime.generation import Generation, Turns
from hired_runtime.pictures import PictureSource, load_picture
from hired_runtime.positions import check_reach, original_positions, padded_positions, positions_in_force
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


class Seen(NamedTuple):
    """Pictures that the vision engine has seen; it holds their features, a slot each, until it sees others.

    Args:
        tilings: one a picture; it has T tiles of N patches.
        maps: one a picture, (T, N) float32 each; the engine's own memory, as the features are.
        features: one a picture: fetches them all, (T, N, D) float32.
    """

    tilings: list[Tiling]
    maps: list[AttentionMaps]
    features: list[Callable[[], Floats]]

    def select(
        self, budget: Budget, policy: str, alpha: float | str, newlines: str | None, partitions: str = "all"
    ) -> list[Selection]:
        """Allocate and select: see `hired_edge.selection.select`."""
        allocation, selection = [each.allocation for each in self.maps], [each.selection for each in self.maps]
        return select(
            self.tilings,
            allocation,
            selection,
            budget,
            policy,
            alpha,
            newlines,
            partitions,
            features=self.features,
            keys=[each.keys for each in self.maps],
        )


class Pipeline:
    """An opened bundle's engines, prompt and tables, put together. `hired_runtime.open` makes one."""

    def __init__(self, bundle: Bundle, limits: Limits, backend: Backend, default_budget: Budget) -> None:
        manifest = bundle.manifest
        self.bundle, self.manifest, self.limits, self.backend = bundle, manifest, limits, backend
        self._default_budget = default_budget
        self.embedding = Embedding(bundle)
        self.prompt = PromptTemplate.open(bundle.root, manifest.prompt, image_token=manifest.image_token)
        self.turns = Turns()

    def generate(self, request: Request) -> Generation:
        """Starts a request; work is done as the generation is iterated.

        Raises (while iterating): InputError, LimitError.
        """
        return Generation(self._run(request), self.turns)

    def look(self, request: Request) -> list[Selection]:
        """The first half of a request: which visual tokens of its pictures would be kept."""
        with self.turns.lock:  # the vision engine holds one request's features
            return self._look(request, Timings())

    def _look(self, request: Request, timings: Timings) -> list[Selection]:
        budget = request.budget or self._default_budget
        seen = self.see(request.images, budget, request.newlines, timings, request.partitions)
        with timings.stage("select"):
            return seen.select(budget, request.policy, request.alpha, request.newlines, request.partitions)

    def see(
        self,
        sources: Sequence[PictureSource],
        budget: Budget,
        newlines: str | None,
        timings: Timings,
        partitions: str = "all",
    ) -> Seen:
        """Cuts pictures into tiles and runs the vision tower on them. Call it with `turns.lock` held.

        Partitions "base": on the base pictures alone.

        Raises:
            InputError: a picture that cannot be read, or a newline policy that the family does not have.
            LimitError: a budget or a number of pictures over what the bundle was opened with.
        """
        with timings.stage("preprocess"):
            pictures = [load_picture(source) for source in sources]
            whole = [tile(picture.height, picture.width, self.manifest.vision.tiling) for picture in pictures]
            tilings = [each.base_picture for each in whole] if partitions == "base" else whole
            for tiling in tilings:
                newline_policy(tiling, newlines)  # a family without rows refuses kept rows
            tiles = max((tiling.tiles for tiling in tilings), default=1)
            visual = budget.tokens(tilings) if tilings else 0
            check_request(self.limits, visual=visual, text=0, new=0, images=len(pictures), tiles=tiles)
            rules = self.manifest.vision.preprocess
            pixels = [
                pixel_values(picture, cut, rules)[: tiling.tiles]
                for picture, cut, tiling in zip(pictures, whole, tilings, strict=True)
            ]
        with timings.stage("vision"):
            maps = [self.backend.vision.encode(each, slot) for slot, each in enumerate(pixels)]
        features = [partial(self._features, tiling, slot) for slot, tiling in enumerate(tilings)]
        return Seen(tilings, maps, features)

    def _features(self, tiling: Tiling, slot: int) -> Floats:
        """All of a picture's features, (T, N, D), a copy."""
        rows = self.backend.vision.gather(np.arange(tiling.patches), slot)
        return rows.reshape(tiling.tiles, tiling.rules.patches_per_tile, -1)

    def _run(self, request: Request) -> Generator[str, None, Answer]:
        timings = Timings()
        stream = TextStream(self.prompt.tokenizer, request.stop)
        new_tokens = self.limits.new_tokens if request.max_new_tokens is None else request.max_new_tokens
        with timings.stage("preprocess"):
            prompt = self.prompt.render(request.messages, pictures=len(request.images))
            check_request(self.limits, visual=0, text=len(prompt.ids), new=new_tokens, images=len(request.images))
        selections = self._look(request, timings)
        with timings.stage("select"):
            row, positions = self.splice(prompt, selections), None
            if positions_in_force(request.policy, request.positions) == "original":
                positions = [original_positions(prompt, selections)]
                check_reach(self.manifest.text, positions[0], new_tokens)
        tokens: list[int] = []
        text: list[str] = []
        stopped = False
        try:
            for (token,) in self.decode([row], request.sampling, new_tokens, timings, positions):
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

    def splice(self, prompt: EncodedPrompt, selections: Sequence[Selection]) -> Floats:
        """(S, D) float32: text embeddings with each picture's kept features and newlines in its place.

        Args:
            prompt: encoded, with a place for each picture.
            selections: one a picture that was seen last, in order of their slots.

        Raises:
            BundleError: the tokenizer gives an id that the embedding has no row for.
        """
        text = self.embedding.rows(prompt.ids)
        parts, done = [], 0
        for slot, (at, selection) in enumerate(zip(prompt.splices, selections, strict=True)):
            visual = self.backend.vision.gather(selection.gather, slot)  # -1 gathers a row that is overwritten next
            visual[selection.gather < 0] = self.embedding.newline
            if selection.merge is not None:
                merge_rows(visual, selection.gather, selection.merge, partial(self.backend.vision.gather, slot=slot))
            parts += [text[done:at], visual]
            done = at
        return np.concatenate([*parts, text[done:]])

    def decode(
        self,
        rows: Sequence[Floats],
        options: SamplingOptions,
        count: int,
        timings: Timings,
        positions: Sequence[Ints] | None = None,
    ) -> Iterator[list[int]]:
        """Prefill, then one step a token: at most `count` times the next token of each row.

        Rows know no stop token: one that has ended goes on, and writes nothing but its own cache. Rows do not see each
        other, but an engine may round otherwise for another shape: a row's tokens are the ones that it would have
        alone, or first diverge from them at a near-tie of the logits.

        Args:
            rows: B sequences of embeddings (S_i, D) float32, together in one batch.
            options: of every row; each draws on its own.
            count: 1 or more.
            timings: gains "prefill", "ttft" and "decode".
            positions: of the rows' tokens in the rotary embedding, (S_i,) each and rising; None for 0 to S_i - 1.

        Yields:
            B token ids.

        Raises (while iterating):
            BundleError: the engine fails, or a logit is not a finite number. The cache is then to be reset.
        """
        sampler, language = Sampler(options, len(rows)), self.backend.language
        lengths = np.array([len(row) for row in rows])
        embeds = _padded(rows)
        placed = None if positions is None else padded_positions(positions, self.manifest.text)
        last = lengths[:, None] - 1 if positions is None else np.array([[row[-1]] for row in positions])
        with timings.stage("prefill"):
            logits = language.step(embeds, np.zeros_like(lengths), lengths - 1, placed)
            tokens: Ints = sampler(logits)
        timings.mark("ttft")
        for step in range(count):
            yield tokens.tolist()
            if step == count - 1:
                return
            with timings.stage("decode"):
                embeds, none = self.embedding.rows(tokens)[:, None], np.zeros_like(lengths)
                logits = language.step(embeds, lengths + step, none, last + 1 + step)
                tokens = sampler(logits)


def _padded(rows: Sequence[Floats]) -> Floats:
    """Rows (S_i, D) as one array (B, S, D), zeros behind the shorter ones."""
    if len(rows) == 1:
        return rows[0][None]
    embeds = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[1]), np.float32)
    for padded, row in zip(embeds, rows, strict=True):
        padded[: len(row)] = row
    return embeds
