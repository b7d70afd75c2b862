"""A serialised engine, loaded, and its execution contexts, which get their memory from us.

Only what `hired_edge.engine_check` has passed comes here. Every tensor's shape is known beforehand, so no output
allocator is needed. Contexts of one backend run one after the other on one stream: they share their scratch memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hired_edge.engine_check import rebuild_command
from hired_edge.errors import BundleError
from hired_runtime.trt.addresses import Shape
from hired_runtime.trt.cuda import Cuda, DeviceBlock
from hired_runtime.trt.log import LastErrors
from hired_runtime.trt.module import Library


class Loader:
    """Deserialises engines. It outlives them: they refer to its runtime and its logger."""

    def __init__(self, library: Library, cuda: Cuda, logger: Any, errors: LastErrors, bundle: Path) -> None:
        self.library, self.cuda, self.errors, self._bundle = library, cuda, errors, bundle
        self._logger: Any = logger
        self._runtime: Any = library.trt.Runtime(logger)
        cuda.on_close(self._release)

    def load(self, path: Path, content: memoryview, expected: Mapping[str, np.dtype]) -> Engine:
        """Deserialises what was checked.

        Args:
            path: of the engine, for messages.
            content: the bytes that were hashed (`engine_check.checked_engine`).
            expected: every input and output, and its type.

        Raises:
            BundleError: TensorRT does not take it, or it has other tensors.
        """
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise self.refusal(f"{self.library} cannot load {path} ({self.errors.reason()})", "an engine for this GPU")
        self._check_tensors(engine, path, expected)
        return Engine(self, engine, path)

    def _check_tensors(self, engine: Any, path: Path, expected: Mapping[str, np.dtype]) -> None:
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        if set(names) != set(expected):
            odd = sorted(set(names) ^ set(expected))[0]
            raise self.refusal(f"{path} and the manifest differ in the tensor {odd}", "the same tensors in both")
        for name, dtype in expected.items():
            found = np.dtype(self.library.trt.nptype(engine.get_tensor_dtype(name)))
            if found != dtype:
                raise self.refusal(f"{name} of {path} is {found}", f"{dtype}")

    def _release(self) -> None:
        self._runtime = self._logger = None  # in this order: the runtime logs to the end

    def refusal(self, got: str, expected: str) -> BundleError:
        return BundleError(got, expected=expected, fix=f"run: {rebuild_command(self._bundle)}")


class Engine:
    """One deserialised engine."""

    def __init__(self, loader: Loader, engine: Any, path: Path) -> None:
        self.loader, self.path = loader, path
        self._engine: Any = engine
        loader.cuda.on_close(self._release)

    @property
    def scratch_bytes(self) -> int:
        """What a context needs while it runs, in whichever profile."""
        return int(self._engine.device_memory_size_v2)

    def check_aliases(self, pairs: Mapping[str, str]) -> None:
        """Each output (key) is to be written where its input lies. Asked where this TensorRT can tell (10.15).

        Raises:
            BundleError: the engine writes it elsewhere.
        """
        ask = getattr(self._engine, "get_aliased_input_tensor", None)
        if ask is None:
            return
        for output, given in pairs.items():
            if ask(output) != given:
                raise self.loader.refusal(f"{self.path} does not write {output} in the place of {given}", "in place")

    def context(self, profile: int, scratch: DeviceBlock, *, one_shape: bool = False) -> Context:
        """A context that stays in one profile; `one_shape`: it will be run with one set of shapes only."""
        return Context(self.loader, self._engine, self.path, profile, scratch, one_shape)

    def _release(self) -> None:
        self._engine = None


class Context:
    """An execution context: shapes and addresses are set once for each kind of step."""

    def __init__(
        self, loader: Loader, engine: Any, path: Path, profile: int, scratch: DeviceBlock, one_shape: bool
    ) -> None:
        self._loader, self._path, self._cuda = loader, path, loader.cuda
        self._context: Any = self._created(engine, one_shape)
        self._cuda.on_close(self._release)
        if self._context is None:
            raise self._failure("make an execution context")
        if not self._context.set_optimization_profile_async(profile, self._cuda.stream):
            raise self._failure(f"use profile {profile}")
        self._context.set_device_memory(scratch.address, scratch.nbytes)
        self._cuda.synchronise()
        self._bound: object = None

    def _created(self, engine: Any, one_shape: bool) -> Any:
        trt = self._loader.library.trt
        ours = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        specialisation = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        if specialisation is None or not one_shape:
            return engine.create_execution_context(ours)
        # TensorRT-RTX compiles kernels for a shape while it runs, by default behind the caller's back: a CUDA graph
        # would hold the slower ones for ever.
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(ours)
        config.dynamic_shapes_kernel_specialization_strategy = specialisation.EAGER
        return engine.create_execution_context(config)

    def bind(self, key: object, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        """Sets every input's shape and every tensor's address; nothing is done if `key` is that of the last call."""
        if key == self._bound:
            return
        self._bound = None
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._failure(f"take {name} as {shape}")
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._failure(f"take the address of {name}")
        self._bound = key

    def enqueue(self) -> None:
        """Asks the stream for one run with what is bound."""
        if not self._context.execute_async_v3(self._cuda.stream):
            raise self._failure("run")

    def refuses_capture(self) -> bool:
        """Whether this library knows beforehand that a run cannot be part of a CUDA graph."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is not None and not ask(self._cuda.stream)

    def _release(self) -> None:
        self._context = None

    def _failure(self, what: str) -> BundleError:
        return BundleError(
            f"{self._loader.library} cannot {what} with {self._path.name} ({self._loader.errors.reason()})",
            expected="an engine that runs here",
            fix="run `hired-edge verify` and `hired-edge doctor`; out of memory: open with a smaller --visual-tokens",
        )
