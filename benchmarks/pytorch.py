"""transformers' LLaVA-NeXT in PyTorch, with fused attention, and its own `generate` timed and counted.

What goes into `generate` is a side's business (`stock.py`, `research.py`). Attention is SDPA and the cache is
`generate`'s default, as a user gets them who asks for nothing else; on a GPU in fp16, on a CPU in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import GenerationConfig, LlavaNextForConditionalGeneration
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from benchmarks.job import Job
from benchmarks.preparation import Preparation, Prepared
from benchmarks.results import Device, Figures
from benchmarks.spreads import figures
from hired_edge.errors import CheckpointError, HiredEdgeError
from hired_runtime.backend import Floats
from hired_runtime.pipeline import Timings
from hired_runtime.profiling.memory import MemorySampler

DTYPES = {"cuda": torch.float16, "cpu": torch.float32}


class Model(NamedTuple):
    """A loaded model, and how its requests are prepared."""

    net: Any
    preparation: Preparation
    device: Device

    def synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class Inputs(NamedTuple):
    """What `generate` takes, and the visual tokens of a row in it."""

    arguments: dict[str, torch.Tensor]
    visual_tokens: int


MakeInputs = Callable[[Sequence[Prepared], Job], Inputs]


def load(job: Job) -> Model:
    """Loads the checkpoint.

    Raises:
        CheckpointError: it lacks a weight.
        HiredEdgeError: out of memory.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with memory_told():
        loaded: Any = LlavaNextForConditionalGeneration.from_pretrained(
            job.checkpoint, dtype=DTYPES[job.device], attn_implementation="sdpa", output_loading_info=True
        )
        net, found = loaded
        if found["missing_keys"]:
            raise CheckpointError(
                f"{job.checkpoint} lacks {', '.join(sorted(found['missing_keys']))[:200]}",
                expected="every weight of the model: one that is made up would be compared",
                fix="remove the folder and run again",
            )
        net = net.to(job.device).eval()
    # No end: every answer is as long as it is asked to be.
    net.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    return Model(net, Preparation(Path(job.asked.bundle)), job.device)


@contextmanager
def memory_told() -> Iterator[None]:
    """An error of PyTorch's allocator as one of ours, which a child process hands on."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise HiredEdgeError(
            f"out of memory ({' '.join(str(error).split())[:160]})", expected="room for it", fix="ask for less"
        ) from None


class _FirstToken(BaseStreamer):
    """Marks when the first token is on the host. `generate` puts the prompt first, then each step's tokens."""

    def __init__(self, timings: Timings) -> None:
        self._timings, self._puts = timings, 0

    def put(self, value: torch.Tensor) -> None:
        self._puts += 1
        if self._puts == 2:
            self._timings.mark("ttft")

    def end(self) -> None:
        """Nothing is shown."""


@torch.inference_mode()
def ask(model: Model, job: Job, make_inputs: MakeInputs) -> tuple[dict[str, float], Inputs]:
    """Asks once, as `hired_runtime.profiling.fixed_request.ask` does: every row is prepared by itself.

    Returns:
        milliseconds ("preprocess", "ttft", "decode" of what follows the first token, "total"), and what was fed.
    """
    model.synchronise()
    timings = Timings()
    with timings.stage("preprocess"):
        rows = [model.preparation.row(job.asked.request) for _ in range(job.asked.batch)]
    inputs = make_inputs(rows, job)
    model.net.generate(**inputs.arguments, max_new_tokens=job.asked.new_tokens, streamer=_FirstToken(timings))
    model.synchronise()
    timings.mark("total")
    timings.ms["decode"] = timings.ms["total"] - timings.ms["ttft"]
    return timings.ms, inputs


@torch.inference_mode()
def answer(model: Model, job: Job, make_inputs: MakeInputs) -> tuple[list[int], Floats]:
    """One row's tokens, and the logits (steps, V) float32 that each was chosen by."""
    inputs = make_inputs([model.preparation.row(job.asked.request)], job)
    found = model.net.generate(
        **inputs.arguments,
        max_new_tokens=job.asked.new_tokens,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = found.sequences[0, -job.asked.new_tokens :].tolist()
    return tokens, torch.cat([step[:1] for step in found.logits]).float().cpu().numpy()


def measure(job: Job, side: Callable[[Model], MakeInputs], report: Callable[[str], None]) -> Figures:
    """Loads, warms up and measures; `side` is what makes the inputs of a loaded model.

    Raises:
        HiredEdgeError: out of memory, among others.
    """
    with MemorySampler() as memory:
        report("loading")
        model = load(job)
        make_inputs = side(model)
        with memory_told():
            for done in range(job.asked.warmup):
                report(f"warm-up {done + 1} of {job.asked.warmup}")
                ask(model, job, make_inputs)
            taken: list[dict[str, float]] = []
            visual = 0
            for done in range(job.asked.iterations):
                report(f"iteration {done + 1} of {job.asked.iterations}")
                ms, inputs = ask(model, job, make_inputs)
                taken.append(ms)
                visual = inputs.visual_tokens
        text = len(model.preparation.row(job.asked.request).prompt.ids)
        return figures(
            job,
            engine=f"torch {torch.__version__}, transformers {transformers.__version__}",
            text_tokens=text,
            visual_tokens=visual,
            taken=taken,
            memory=memory.result(),
        )
