"""picture -> tiles -> vision engine -> allocate -> select -> splice -> prefill -> decode, in that order, each timed.

A request is one row of the cache. `prepare` is all of a request that comes before the language engine; rows are then
filled and decoded side by side (`hired_runtime.continuous`). `see`, `splice` and `decode` are steps of their own for
whoever measures them or puts several questions about one picture together (`hired_runtime.evaluation`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hired_edge.budget import Budget
from hired_edge.bundle import Bundle
from hired_edge.errors import NumericalError
from hired_edge.finite import check_finite
from hired_edge.limits import Limits, check_request
from hired_edge.merging import merge_rows
from hired_edge.packing import newline_policy
from hired_edge.selection import Selection
from hired_edge.tiling import Tiling
from hired_runtime.backend import Backend, Floats, Ints
from hired_runtime.continuous import Batcher
from hired_runtime.embedding import Embedding
from hired_runtime.encoder_cache import EncoderCache
from hired_runtime.generation import Generation, Turns
from hired_runtime.pictures import PictureSource
from hired_runtime.positions import check_reach, original_positions, padded_positions, positions_in_force
from hired_runtime.prefix import Names, names_of
from hired_runtime.prompt import EncodedPrompt, PromptTemplate
from hired_runtime.request import Answer, Request
from hired_runtime.sampling import Sampler, SamplingOptions
from hired_runtime.seen import Gather, Seen
from hired_runtime.timings import STAGES, Timings

MOST_SELECTIONS = 64
"""Selections that are kept of earlier requests: 70 KB each for LLaVA-NeXT's largest picture."""


class Prepared(NamedTuple):
    """A request before the language engine.

    Args:
        prompt: encoded, with a place for each picture.
        selections: one a picture.
        gather: one a picture: rows of its features.
        names: what every position of the spliced prompt is known by, (S, 4).
        positions: of each in the rotary embedding, (S,).
        new_tokens: that may be made.
    """

    prompt: EncodedPrompt
    selections: list[Selection]
    gather: list[Gather]
    names: Names
    positions: Ints
    new_tokens: int


class Pipeline:
    """An opened bundle's engines, prompt and tables, put together. `hired_runtime.open` makes one.

    Args:
        default_budget: of a request that has none.
        pictures: whose features the vision engine has room for.
    """

    def __init__(self, bundle: Bundle, limits: Limits, backend: Backend, default_budget: Budget, pictures: int) -> None:
        manifest = bundle.manifest
        self.bundle, self.manifest, self.limits, self.backend = bundle, manifest, limits, backend
        self._default_budget = default_budget
        self.embedding = Embedding(bundle)
        self.prompt = PromptTemplate.open(bundle.root, manifest.prompt, image_token=manifest.image_token)
        self.turns = Turns()
        self.encoder_cache = EncoderCache(manifest, pictures, lambda: self.backend.vision)
        self._selections: OrderedDict[Any, list[Selection]] = OrderedDict()
        self.batcher = Batcher(self)

    def generate(self, request: Request) -> Generation:
        """Starts a request; work is done as the generation is iterated.

        Raises (while iterating): InputError, LimitError.
        """
        return Generation(self.run(request), self.turns)

    def run(self, request: Request) -> Generator[str, None, Answer]:
        """As `generate`, for whoever keeps turns in another way. Unfinished requests are given up."""
        self.batcher.clear()
        running = self.batcher.start(request)
        try:
            while True:
                if piece := running.take():
                    yield piece
                if running.error is not None:
                    raise running.error
                if running.answer is not None:
                    return running.answer
                self.batcher.step()
        finally:
            with self.turns.lock:
                self.batcher.drop(running)  # a reader that stops listening

    def look(self, request: Request, timings: Timings | None = None) -> list[Selection]:
        """The first half of a request: which visual tokens of its pictures would be kept."""
        with self.turns.lock:  # the vision engine holds one request's features
            try:
                return self._look(request, timings or Timings())[0]
            except NumericalError:
                self.encoder_cache.clear()  # it may not be so the next time
                raise

    def _look(self, request: Request, timings: Timings) -> tuple[list[Selection], Seen, list[bytes]]:
        """The selections, what was seen, and what its pictures are known by."""
        budget = request.budget or self._default_budget

        def check(tilings: list[Tiling]) -> None:
            self._check_visual(tilings, budget, request.newlines)

        seen, keys = self.encoder_cache.see(request.images, request.partitions, check, timings, reuse=request.reuse)
        with timings.stage("select"):
            how = (budget, request.policy, request.alpha, request.newlines, request.partitions)
            selections = self._selections.get((*keys, *how)) or seen.select(*how)
            if request.reuse and all(each.merge is None for each in selections):  # a merge may be large
                for each in selections:
                    _freeze(each)
                self._selections[(*keys, *how)] = selections
                self._selections.move_to_end((*keys, *how))
                if len(self._selections) > MOST_SELECTIONS:
                    self._selections.popitem(last=False)
        return selections, seen, [key.digest + key.partitions.encode() for key in keys]

    def prepare(self, request: Request, timings: Timings) -> Prepared:
        """Everything of a request but the language engine. Call it with `turns.lock` held.

        Raises:
            InputError, LimitError, BundleError: whatever is wrong with the request, or fails.
        """
        new_tokens = self.limits.new_tokens if request.max_new_tokens is None else request.max_new_tokens
        with timings.stage("preprocess"):
            prompt = self.prompt.render(request.messages, pictures=len(request.images))
            check_request(self.limits, visual=0, text=len(prompt.ids), new=new_tokens, images=len(request.images))
        selections, seen, pictures = self._look(request, timings)
        with timings.stage("select"):
            if positions_in_force(request.policy, request.positions) == "original":
                positions = original_positions(prompt, selections)
                check_reach(self.manifest.text, positions, new_tokens)
            else:
                positions = np.arange(len(prompt.ids) + sum(each.visual_tokens for each in selections))
            names = names_of(prompt, selections, pictures, positions)
        return Prepared(prompt, selections, seen.gather, names, positions, new_tokens)

    def _check_visual(self, tilings: list[Tiling], budget: Budget, newlines: str | None) -> None:
        for tiling in tilings:
            newline_policy(tiling, newlines)  # a family without rows refuses kept rows
        tiles = max((tiling.tiles for tiling in tilings), default=1)
        visual = budget.tokens(tilings) if tilings else 0
        check_request(self.limits, visual=visual, text=0, new=0, images=len(tilings), tiles=tiles)

    def see(
        self,
        sources: Sequence[PictureSource],
        budget: Budget,
        newlines: str | None,
        timings: Timings,
        partitions: str = "all",
    ) -> Seen:
        """Cuts pictures into tiles and runs the vision tower on them, anew. Call it with `turns.lock` held.

        Raises:
            InputError: a picture that cannot be read, or a newline policy that the family does not have.
            LimitError: a budget or a number of pictures over what the bundle was opened with.
        """

        def check(tilings: list[Tiling]) -> None:
            self._check_visual(tilings, budget, newlines)

        return self.encoder_cache.see(sources, partitions, check, timings, reuse=False)[0]

    def splice(
        self, prompt: EncodedPrompt, selections: Sequence[Selection], gather: Sequence[Gather], skip: int = 0
    ) -> Floats:
        """(S - skip, D) float32: text embeddings with each picture's kept features and newlines in its place.

        Args:
            prompt: encoded, with a place for each picture.
            selections, gather: one a picture.
            skip: positions that are left out from the beginning; pictures among them are not gathered.

        Raises:
            BundleError: the tokenizer gives an id that the embedding has no row for.
            NumericalError: features that are not finite.
        """
        parts, done, at = [], 0, 0
        for splice, selection, rows in zip(prompt.splices, selections, gather, strict=True):
            parts.append(self.embedding.rows(prompt.ids[done + max(0, min(skip - at, splice - done)) : splice]))
            at += splice - done
            if at + selection.visual_tokens > skip:
                parts.append(self._visual(selection, rows)[max(0, skip - at) :])
            at += selection.visual_tokens
            done = splice
        rest = prompt.ids[done + max(0, skip - at) :]
        return np.concatenate([*parts, self.embedding.rows(rest)])

    def _visual(self, selection: Selection, gather: Gather) -> Floats:
        """What one picture puts into the language model, (visual_tokens, D)."""
        visual = gather(selection.gather)  # -1 gathers a row that is overwritten next
        visual[selection.gather < 0] = self.embedding.newline
        if selection.merge is not None:
            merge_rows(visual, selection.gather, selection.merge, gather)
        check_finite(visual, "features of the vision engine")
        return visual

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
        self.batcher.forget()  # it writes over the first rows of the cache
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


def _freeze(selection: Selection) -> None:
    """Who is handed a selection that later requests use must not change it."""
    for array in (*selection.indices, selection.gather, selection.places):
        array.setflags(write=False)


__all__ = ["STAGES", "Answer", "Generation", "Pipeline", "Prepared", "Request", "Seen", "Timings"]
