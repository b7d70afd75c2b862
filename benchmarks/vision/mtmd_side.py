"""llama.cpp's tower and projector (mtmd), through the PyPI package llama-cpp-python: the tiles, one after the other.

    python -m benchmarks.vision.mtmd_side MMPROJ TEXT PIXELS THREADS TOKENS

Runs in the peers' environment, with their numpy. Each tile is given as one picture and encoded by a call of its own
(`mtmd_encode_chunk`): llama.cpp's graph of LLaVA takes no batch, and cuts an anyres picture into the same tiles. Flash
attention is on, its default. It gives no attention maps, its GELUs are llama.cpp's, and preparing the picture is not
timed. TEXT is a language model that is loaded for its width and tokenizer alone.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import llama_cpp  # pyright: ignore[reportMissingImports]
import numpy as np
from llama_cpp import mtmd_cpp as mtmd  # pyright: ignore[reportMissingImports]

from benchmarks.cpu.serving import serve
from benchmarks.vision.mmproj_file import MEAN, STD


class Tower:
    """A loaded tower and its tiles.

    Args:
        mmproj, text: GGUF files.
        pixels: (T, 3, h, w) float32, normalised, which are made bytes again.
        tokens: of a tile, expected.
    """

    def __init__(self, mmproj: str, text: str, pixels: str, threads: int, tokens: int) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(text.encode(), llama_cpp.llama_model_default_params())
        assert model, "llama.cpp cannot load the text model"
        options = mtmd.mtmd_context_params_default()
        options.use_gpu, options.print_timings, options.n_threads = False, False, threads
        self._context = mtmd.mtmd_init_from_file(mmproj.encode(), model, options)
        assert self._context, "mtmd cannot load the tower"
        self._shape = (tokens, llama_cpp.llama_model_n_embd(model))
        self._chunks = self._cut(np.load(pixels))

    def together(self) -> float:
        """Seconds of all tiles; each one's embeddings are looked at between, untimed."""
        seconds = 0.0
        for chunk in self._chunks:
            begin = time.perf_counter()
            status = mtmd.mtmd_encode_chunk(self._context, chunk)
            seconds += time.perf_counter() - begin
            assert status == 0, f"mtmd_encode_chunk ended with {status}"
            found = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._context), self._shape)
            assert np.isfinite(found).all(), "mtmd gave embeddings that are not finite"
            assert found.std() > 0, "mtmd gave embeddings that are all the same"
        return seconds

    def _cut(self, pixels: np.ndarray) -> list[Any]:
        """A chunk of mtmd's for every tile."""
        mean, std = (np.array(each, np.float32)[:, None, None] for each in (MEAN, STD))
        tiles = np.rint((pixels * std + mean) * 255).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        pictures = [self._bitmap(np.ascontiguousarray(tile)) for tile in tiles]
        marker = mtmd.mtmd_default_marker() * len(pictures)
        asked = mtmd.mtmd_input_text(marker, len(marker), False, True)
        chunks = mtmd.mtmd_input_chunks_init()
        array = (mtmd.mtmd_bitmap_p_ctypes * len(pictures))(*pictures)
        status = mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(asked), array, len(pictures))
        assert status == 0, f"mtmd_tokenize ended with {status}"
        found = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
        tokens = [mtmd.mtmd_input_chunk_get_n_tokens(chunk) for chunk in found]
        assert tokens == [self._shape[0]] * len(tiles), f"mtmd made chunks of {tokens} tokens"
        return found

    def _bitmap(self, tile: np.ndarray) -> Any:
        height, width, _ = tile.shape
        return mtmd.mtmd_bitmap_init(width, height, tile.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))


def _open() -> Mapping[str, Callable[..., Any]]:
    mmproj, text, pixels, threads, tokens = sys.argv[1:]
    tower = Tower(mmproj, text, pixels, int(threads), int(tokens))
    return {"together": tower.together, "version": lambda: f"llama-cpp-python {llama_cpp.__version__}"}


if __name__ == "__main__":
    serve(_open)
