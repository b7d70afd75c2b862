"""The language engine of TensorRT and its cache on the device.

A step's inputs cross in one copy, its logits in another. Decoding with all rows of the opening has the same shapes and
addresses every time: it is captured once as a CUDA graph (copy, engine, copy) and then launched. What changes from step
to step changes in memory: positions, indices and the mask are inputs. An `append` graph's copies into the cache depend
on the positions: they follow the CUDA graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hired_runtime.backend import Floats, Ints
from hired_runtime.trt.addresses import LanguageAddresses
from hired_runtime.trt.cuda import Cuda, DeviceBlock
from hired_runtime.trt.engine import Context


class TrtLanguage:
    """The language engine.

    Decoding with all rows has a context of its own, even where it shares prefill's profile: what is captured in a CUDA
    graph is not to be disturbed by other shapes. Every other step, of fewer rows too, runs in prefill's.

    Attributes:
        graph: "CUDA graph", or why decoding goes without one.
    """

    def __init__(
        self, cuda: Cuda, decode: Context, prefill: Context, addresses: LanguageAddresses, batch: int, prompt: int
    ) -> None:
        self._cuda, self._decode, self._prefill, self._addresses = cuda, decode, prefill, addresses
        self._batch, self._prompt = batch, prompt
        self.rules = addresses.rules
        self._cache = cuda.allocate(addresses.cache_bytes, "the key-value cache")
        self._inputs = cuda.allocate(addresses.input_bytes, "inputs of a step")
        self._updates = cuda.allocate(addresses.update_bytes, "new keys and values")
        self._logits = cuda.allocate(addresses.logits_bytes, "logits")
        self._host_inputs = cuda.allocate_host(addresses.input_bytes, "inputs of a step")
        self._host_logits = cuda.allocate_host(addresses.logits_bytes, "logits")
        self._captured: Any | None = None
        self.graph = self._capture()

    def step(
        self, inputs_embeds: Floats, starts: Ints, last_token: Ints, positions: Ints | None = None, first: int = 0
    ) -> Floats:
        batch, tokens, _ = inputs_embeds.shape
        self.rules.check_step(starts, tokens)
        assert first + batch <= self._batch, (first, batch)
        assert tokens <= self._prompt, tokens
        self._cuda.use()
        self._write(inputs_embeds, starts, last_token, positions)
        if self._captured is not None and (batch, tokens) == (self._batch, 1):
            self._cuda.launch(self._captured)
        else:
            self._bind(batch, tokens, first)
            self._run(batch, tokens)
        if self.rules.kind == "append":
            for box in self._addresses.appended(starts, tokens, first):
                self._cuda.copy(box, self._cache, self._updates)
        self._cuda.synchronise()
        return self._addresses.logits(batch).of(self._host_logits.bytes)

    def copy(self, source: int, target: int, tokens: int) -> bool:
        self._cuda.use()
        for box in self._addresses.copied(source, target, tokens):
            self._cuda.copy(box, self._cache, self._cache)
        self._cuda.synchronise()
        return True

    def reset(self) -> None:
        self._cuda.use()
        self._cuda.zero(self._cache)
        self._cuda.synchronise()

    def reset_row(self, row: int) -> bool:
        self._cuda.use()
        for field in self._addresses.cache(1, row).values():
            self._cuda.zero(DeviceBlock(self._cache.address + field.offset, field.nbytes))
        self._cuda.synchronise()
        return True

    def _context(self, batch: int, tokens: int) -> Context:
        return self._decode if (batch, tokens) == (self._batch, 1) else self._prefill

    def _write(self, inputs_embeds: Floats, starts: Ints, last_token: Ints, positions: Ints | None = None) -> None:
        """Puts a step's inputs into page-locked memory, in the graph's own types."""
        batch, tokens, _ = inputs_embeds.shape
        fields = self._addresses.inputs(batch, tokens).fields
        for name, array in self.rules.step_inputs(inputs_embeds, starts, last_token, fields, positions).items():
            fields[name].of(self._host_inputs.bytes)[:] = array

    def _bind(self, batch: int, tokens: int, first: int = 0) -> None:
        addresses, names = self._addresses, self.rules.names
        cache = addresses.cache(batch, first)
        inputs = addresses.inputs(batch, tokens).fields
        places = {name: self._inputs.address + field.offset for name, field in inputs.items()}
        places |= {name: self._cache.address + field.offset for name, field in cache.items()}
        if self.rules.kind == "in_place":  # written where the past is read
            places |= {new: places[past] for past, new in zip(names.past, names.present, strict=True)}
        else:
            updates = addresses.updates(batch, tokens).fields
            places |= {name: self._updates.address + field.offset for name, field in updates.items()}
        places["logits"] = self._logits.address
        self._context(batch, tokens).bind((batch, tokens, first), addresses.shapes(batch, tokens), places)

    def _run(self, batch: int, tokens: int) -> None:
        """Asks the stream for a step: everything in it has a fixed address."""
        self._cuda.to_device(self._inputs, self._host_inputs, self._addresses.inputs(batch, tokens).nbytes)
        self._context(batch, tokens).enqueue()
        self._cuda.to_host(self._host_logits, self._logits, self._addresses.logits(batch).nbytes)

    def _capture(self) -> str:
        """Decodes once on zeros, which a context wants before it is captured, then captures the same step."""
        batch = self._batch
        self._cuda.synchronise()
        nowhere = np.zeros(batch, np.int64)
        self._write(np.zeros((batch, 1, 1), np.float32), nowhere, nowhere)
        self._bind(batch, 1)
        self._run(batch, 1)
        self._cuda.synchronise()
        if self._decode.refuses_capture():
            reason = "the engine cannot be captured"
        else:
            self._captured, reason = self._cuda.capture(lambda: self._run(batch, 1))
        self.reset()
        return "CUDA graph" if self._captured is not None else f"no CUDA graph: {reason}"
