"""This runtime: prefill, decode and the vision side of a bundle, asked for one at a time.

    python -m benchmarks.cpu.ours BUNDLE THREADS VISUAL_TOKENS

It imports no torch. Steps go through the backend that `hired_runtime.open` gives, chunks and all; the embeddings are
noise, since no time depends on them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import hired_runtime
from benchmarks.cpu.serving import serve
from benchmarks.cpu.where_time_goes import shares
from hired_edge.budget import parse_budget
from hired_edge.selection import select
from hired_edge.tiling import tile
from hired_runtime.backend import Floats
from hired_runtime.ort import OrtLanguage
from hired_runtime.pipeline import Timings
from hired_runtime.prompt import question

PROMPT = "What is shown in this picture?"


class Ours:
    """An opened bundle."""

    def __init__(self, bundle: str, threads: int, visual_tokens: str) -> None:
        start = time.perf_counter()
        self.model = hired_runtime.open(bundle, visual_tokens=visual_tokens, images=1, threads=threads, rehash=True)
        self._opening_s = time.perf_counter() - start
        self._pipeline, self._threads = self.model.pipeline, threads
        width = self._pipeline.manifest.text.hidden_size
        random = np.random.Generator(np.random.PCG64(0))
        self._noise: Floats = 0.05 * random.standard_normal((1, self.model.limits.max_sequence_length, width), "f4")

    def prefill(self, tokens: int) -> float:
        """Seconds of a prompt of `tokens`, from embeddings to the last token's logits."""
        return self._step(0, tokens)

    def decode(self, cache: int, steps: int) -> list[float]:
        """Seconds of each of `steps` single tokens behind `cache` that are there."""
        return [self._step(cache + step, 1) for step in range(steps)]

    def _step(self, start: int, tokens: int) -> float:
        embeds, begin = self._noise[:, :tokens], time.perf_counter()
        self._pipeline.backend.language.step(embeds, np.array([start]), np.array([tokens - 1]))
        return time.perf_counter() - begin

    def see(self, picture: str, budget: str) -> dict[str, float]:
        """Seconds of everything between a request and its prefill, by stage."""
        pipeline, timings = self._pipeline, Timings()
        with pipeline.turns.lock:
            with timings.stage("preprocess"):
                prompt = pipeline.prompt.render(question(PROMPT, 1), pictures=1)
            seen = pipeline.see([picture], parse_budget(budget), None, timings)
            with timings.stage("select"):
                selections = seen.select(parse_budget(budget), "hired", 0.5, None)
            with timings.stage("splice"):
                pipeline.splice(prompt, selections, seen.gather)
        return {name: ms / 1e3 for name, ms in timings.ms.items()}

    def policies(self, budget: str, names: list[str], repeats: int) -> dict[str, list[float]]:
        """Seconds of each policy's selection alone, from noise as maps, of a picture of two by two tiles."""
        rules = self._pipeline.manifest.vision.tiling
        cut = tile(2 * rules.image_size, 2 * rules.image_size, rules)
        random = np.random.Generator(np.random.PCG64(0))
        maps = random.random((2, cut.tiles, rules.patches_per_tile), np.float32)
        found: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                begin = time.perf_counter()
                select([cut], [maps[0]], [maps[1]], parse_budget(budget), name, 0.5, None)
                found[name].append(time.perf_counter() - begin)
        return found

    def profile(self, tokens: int) -> dict[str, dict[str, float]]:
        """Seconds by kind of operator, of a prompt of `tokens` and of one token behind it."""
        language = self._pipeline.backend.language
        assert isinstance(language, OrtLanguage)
        prompt, one = f"prefill {tokens}", f"decode {tokens}"
        runs = {prompt: lambda: self.prefill(tokens), one: lambda: self.decode(tokens, 1)}
        return shares(self._pipeline.bundle, language, self._threads, runs)

    def opening(self) -> float:
        """Seconds that `hired_runtime.open` took, every file verified."""
        return self._opening_s


def _open() -> Mapping[str, Callable[..., Any]]:
    bundle, threads, visual_tokens = sys.argv[1:]
    ours = Ours(bundle, int(threads), visual_tokens)
    return {
        "prefill": ours.prefill,
        "decode": ours.decode,
        "see": ours.see,
        "policies": ours.policies,
        "profile": ours.profile,
        "opening": ours.opening,
        "version": lambda: ours.model.pipeline.backend.name,
    }


if __name__ == "__main__":
    serve(_open)
