"""llama.cpp, through the PyPI package llama-cpp-python: prefill and decode of a GGUF file, one sequence.

    python -m benchmarks.cpu.llama FILE THREADS SLOTS

Runs in the peers' environment, with their numpy and nothing of ours but `serving`. Batches are llama.cpp's defaults
(512 tokens at a time), its cache is fp16, its weights are repacked for this processor as it does by default.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import llama_cpp  # pyright: ignore[reportMissingImports]

from benchmarks.cpu.serving import serve


class Llama:
    """A loaded model and its context."""

    def __init__(self, path: str, threads: int, slots: int) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = slots
        options.n_batch = slots
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model, options)
        assert self._context, "llama.cpp cannot make a context"
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(slots, 0, 1)

    def prefill(self, tokens: int) -> float:
        """Seconds of a prompt of `tokens` in an empty cache, logits of the last one alone."""
        llama_cpp.llama_memory_clear(self._memory, False)
        return self._run(0, tokens)

    def decode(self, cache: int, steps: int) -> list[float]:
        """Seconds of each of `steps` single tokens behind `cache` that are there."""
        return [self._run(cache + step, 1) for step in range(steps)]

    def _run(self, start: int, tokens: int) -> float:
        batch = self._batch
        batch.n_tokens = tokens
        for i in range(tokens):
            batch.token[i] = 5 + (7919 * (start + i)) % 30000
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == tokens - 1
        begin = time.perf_counter()
        status = llama_cpp.llama_decode(self._context, batch)
        llama_cpp.llama_synchronize(self._context)
        seconds = time.perf_counter() - begin
        assert status == 0, f"llama_decode ended with {status}"
        assert llama_cpp.llama_get_logits_ith(self._context, tokens - 1)
        return seconds


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """llama.cpp tells much while it loads."""


def _open() -> Mapping[str, Callable[..., Any]]:
    path, threads, slots = sys.argv[1:]
    llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
    llama = Llama(path, int(threads), int(slots))
    return {
        "prefill": llama.prefill,
        "decode": llama.decode,
        "version": lambda: f"llama-cpp-python {llama_cpp.__version__}",
    }


if __name__ == "__main__":
    serve(_open)
