"""transformers in PyTorch, float32: prefill, decode, and HiRED's vision side as its authors run it.

    python -m benchmarks.cpu.torch_side CHECKPOINT BUNDLE THREADS

`see` is `benchmarks.research`: hooks on two layers of the tower, whole attention maps, the same selection as ours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

from benchmarks import pytorch
from benchmarks.cpu.ours import PROMPT
from benchmarks.cpu.serving import serve
from benchmarks.job import Job
from benchmarks.research import Research
from hired_runtime.profiling.measuring import Job as Asked


class Transformers:
    """A loaded model."""

    def __init__(self, checkpoint: str, bundle: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._job = job_of(checkpoint, bundle, "", "20%")
        self._model = pytorch.load(self._job)
        self._research = Research(self._model)
        self._text, self._head = self._model.net.model.language_model, self._model.net.lm_head
        self._width: int = self._model.net.config.text_config.hidden_size
        self._cache: Any = None
        generator = torch.Generator().manual_seed(0)
        self._noise = 0.05 * torch.randn(1, 4096, self._width, generator=generator)

    @torch.inference_mode()
    def prefill(self, tokens: int) -> float:
        """As `ours.Ours.prefill`; the cache is the default one, made anew."""
        self._cache = None
        return self._step(tokens)

    @torch.inference_mode()
    def decode(self, cache: int, steps: int) -> list[float]:
        """As `ours.Ours.decode`, behind the prompt that was filled in last, whose length is `cache`."""
        surplus = self._cache.get_seq_length() - cache
        assert surplus >= 0, "a prompt comes first"
        if surplus:
            self._cache.crop(-surplus)
        return [self._step(1) for _ in range(steps)]

    def _step(self, tokens: int) -> float:
        begin = time.perf_counter()
        out = self._text(inputs_embeds=self._noise[:, :tokens], past_key_values=self._cache, use_cache=True)
        self._head(out.last_hidden_state[:, -1:])
        self._cache = out.past_key_values
        return time.perf_counter() - begin

    @torch.inference_mode()
    def see(self, picture: str, budget: str) -> float:
        """Seconds from the picture's file to spliced embeddings."""
        job = job_of(self._job.checkpoint, self._job.asked.bundle, picture, budget)
        begin = time.perf_counter()
        self._research([self._model.preparation.row(job.asked.request)], job)
        return time.perf_counter() - begin


def job_of(checkpoint: str, bundle: str, picture: str, budget: str, batch: int = 1, new_tokens: int = 1) -> Job:
    """A request of the PyTorch sides: `bundle` gives the rules of prompt and picture."""
    asked = Asked(
        bundle=bundle,
        budget=budget,
        prompt=PROMPT,
        images=(picture,),
        policy="hired",
        alpha="0.5",
        newlines=None,
        batch=batch,
        new_tokens=new_tokens,
        threads=None,
        backend=None,
        warmup=0,
        iterations=1,
    )
    return Job(asked, checkpoint, "cpu")


def _open() -> Mapping[str, Callable[..., Any]]:
    checkpoint, bundle, threads = sys.argv[1:]
    side = Transformers(checkpoint, bundle, int(threads))
    return {
        "prefill": side.prefill,
        "decode": side.decode,
        "see": side.see,
        "version": lambda: f"torch {torch.__version__}, transformers {transformers.__version__}",
    }


if __name__ == "__main__":
    serve(_open)
