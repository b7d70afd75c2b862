"""From the milliseconds and the memory of a cell's process to its figures, the same for every side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.job import Job
from benchmarks.results import Figures
from hired_runtime.profiling.schema import Memory
from hired_runtime.profiling.spread import statistics_of


def figures(
    job: Job,
    *,
    engine: str,
    text_tokens: int,
    visual_tokens: int,
    taken: Sequence[Mapping[str, float]],
    memory: Memory,
) -> Figures:
    """The figures of a cell.

    Args:
        taken: milliseconds of each iteration: "preprocess", "ttft", and "decode" of the tokens after the first.
        memory: sampled from before the model was loaded.
    """
    tokens = 1e3 * job.asked.batch * (job.asked.new_tokens - 1)
    return Figures(
        engine=engine,
        text_tokens=text_tokens,
        visual_tokens=visual_tokens,
        preparation_ms=statistics_of([each["preprocess"] for each in taken]),
        ttft_ms=statistics_of([each["ttft"] for each in taken]),
        tokens_per_s=statistics_of([tokens / each["decode"] for each in taken]),
        peak_bytes=_peak(memory, job.device == "cuda"),
    )


def _peak(memory: Memory, gpu: bool) -> int:
    if gpu:
        assert memory.gpu_peak_bytes is not None, "machine.look has asked"
        assert memory.gpu_base_bytes is not None
        return memory.gpu_peak_bytes - memory.gpu_base_bytes
    return memory.process_peak_bytes - memory.process_base_bytes
