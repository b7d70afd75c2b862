"""A faked NVIDIA GPU: a CUDA driver whose device memory is the host's, and a TensorRT whose engines ONNX Runtime runs.

It proves what our code does with addresses, shapes, copies, captures and errors; nothing about CUDA or TensorRT. It is
strict where they are: work waits until the stream is synchronised, every access lies inside live memory, addresses are
aligned, shapes lie within the profile, an aliased output lies where its input does.
"""

from __future__ import annotations

import enum
import json
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.tiny.faked_cuda import SM, FakedDriver, Result

__all__ = ["SM", "VERSION", "FakedDriver", "Result", "engine_content", "install"]

VERSION = "10.16.2.10"


class FakedTensorrt(ModuleType):
    """tensorrt. An engine file is a JSON object: {"onnx": path, "profiles": ..., "aliases": {output: input}}."""

    __version__ = VERSION

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None:
            pass

    class ExecutionContextAllocationStrategy(enum.Enum):
        STATIC, USER_MANAGED = 0, 2

    def __init__(self, driver: FakedDriver) -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self.driver = driver

    @staticmethod
    def nptype(dtype: np.dtype) -> type:
        return dtype.type

    def Runtime(self, logger: Any) -> Any:
        return FakedRuntime(self.driver, logger)


class FakedRuntime:
    def __init__(self, driver: FakedDriver, logger: Any) -> None:
        self._driver, self._logger = driver, logger

    def deserialize_cuda_engine(self, content: memoryview) -> FakedEngine | None:
        with suppress(ValueError):
            return FakedEngine(self._driver, json.loads(bytes(content)))
        self._logger.log(FakedTensorrt.ILogger.ERROR, "faked: not an engine\nat all")
        return None


class FakedEngine:
    device_memory_size_v2 = 1000

    def __init__(self, driver: FakedDriver, content: dict[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        self.session = onnxruntime.InferenceSession(content["onnx"], options, providers=["CPUExecutionProvider"])
        self.driver, self.profiles, self.aliases = driver, content["profiles"], content["aliases"]
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self._names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_dtype(self, name: str) -> np.dtype:
        types = {"float": np.float32, "float16": np.float16, "int64": np.int64, "bool": np.bool_}
        return np.dtype(types[(self.inputs | self.outputs)[name].type.removeprefix("tensor(").removesuffix(")")])

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.aliases.get(name)

    def create_execution_context(self, strategy: Any) -> FakedContext:
        assert strategy is FakedTensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        return FakedContext(self)


class FakedContext:
    def __init__(self, engine: FakedEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch, self._captured = 0, False

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self._profile = self._engine.profiles[number]
        return stream == 7

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2
        self._scratch = self._engine.driver.inside(address, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self._captured, "what is in a CUDA graph is not to be disturbed"
        self._shapes[name] = shape
        low, high = self._profile[name]["min"], self._profile[name]["max"]
        return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        assert self._scratch
        self._captured |= self._engine.driver.capturing
        engine, addresses = self._engine, dict(self._addresses)
        shapes: dict[str, Any] = dict(self._shapes)
        sizes = {
            dimension: size
            for name, value in engine.inputs.items()
            for dimension, size in zip(value.shape, shapes[name], strict=True)
        }
        for name, value in engine.outputs.items():
            shapes[name] = tuple(sizes.get(dimension, dimension) for dimension in value.shape)
        for output, given in engine.aliases.items():
            assert addresses[output] == addresses[given]

        def run() -> None:
            binding = engine.session.io_binding()
            for names, bind in ((engine.inputs, binding.bind_input), (engine.outputs, binding.bind_output)):
                for name in names:
                    dtype = engine.get_tensor_dtype(name)
                    size = int(np.prod(shapes[name])) * dtype.itemsize
                    bind(name, "cpu", 0, dtype, shapes[name], engine.driver.inside(addresses[name], size))
            engine.session.run_with_iobinding(binding)

        engine.driver._later(run)
        return True


def install(patch: pytest.MonkeyPatch, gpus: int = 1) -> FakedDriver:
    """This process has a faked GPU, or none, and a faked tensorrt until `patch` is undone."""
    driver = FakedDriver(gpus)
    package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    bindings.__dict__["driver"] = driver
    patch.setitem(sys.modules, "cuda", package)
    patch.setitem(sys.modules, "cuda.bindings", bindings)
    patch.setitem(sys.modules, "cuda.bindings.driver", driver)
    patch.setitem(sys.modules, "tensorrt", FakedTensorrt(driver))
    return driver


def engine_content(onnx: Path, profiles: Any, aliases: dict[str, str]) -> bytes:
    """What `FakedRuntime` reads."""
    return json.dumps({"onnx": str(onnx), "profiles": profiles, "aliases": aliases}).encode()
