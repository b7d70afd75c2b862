"""What the TensorRT backend asks of cuda-bindings and TensorRT is there, with the arguments that it passes.

Held against the modules that are installed (cuda-bindings, tensorrt_rtx), which need no GPU for that, and against what
TensorRT 10.3's own binding defines (JetPack 6). What is asked is read from our sources, so nothing can be forgotten.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hired_edge.errors import BundleError
from hired_runtime.trt import addresses, cuda, engine, log, module
from hired_runtime.trt.cuda import Cuda, copy_order
from hired_runtime.trt.engine import Loader
from tests.tiny import faked_gpu

LIBRARY = module.load("tensorrt_rtx")
driver: Any = importlib.import_module("cuda.bindings.driver")

# Of IExecutionContext, ICudaEngine, Runtime and the module, as far as we use them. Source: NVIDIA/TensorRT, tag
# v10.3.0, python/src/infer/pyCore.cpp and python/packaging/bindings_wheel/tensorrt/__init__.py (nptype).
IN_10_3 = {
    "ExecutionContextAllocationStrategy",
    "Runtime",
    "create_execution_context",
    "deserialize_cuda_engine",
    "device_memory_size_v2",
    "execute_async_v3",
    "get_tensor_dtype",
    "get_tensor_name",
    "nptype",
    "num_io_tensors",
    "set_device_memory",
    "set_input_shape",
    "set_optimization_profile_async",
    "set_tensor_address",
}
SINCE = {
    "DynamicShapesKernelSpecializationStrategy",  # TensorRT-RTX alone
    "create_runtime_config",
    "get_aliased_input_tensor",  # 10.15
    "is_stream_capturable",  # TensorRT-RTX alone
}
"""What our sources ask for through getattr first, or only where such a name was found."""


def tree(source: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(source))


def attributes(source: ModuleType, *owners: str) -> set[str]:
    """Names that are read of these expressions ("driver", "self._driver"), by a dot or by getattr."""
    found = set()
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in owners:
            found.add(node.attr)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and ast.unparse(node.args[0]) in owners:
            assert isinstance(node.args[1], ast.Constant)
            found.add(node.args[1].value)
    return found


def calls(source: ModuleType, *owners: str) -> list[tuple[str, int]]:
    """(function, number of arguments) of every call of these modules' functions; `callback(f, ...)` calls f too."""
    found = []
    for node in ast.walk(tree(source)):
        if not isinstance(node, ast.Call):
            continue
        function, arguments = node.func, node.args
        if ast.unparse(function).endswith(".callback"):
            function, *arguments = arguments
        if isinstance(function, ast.Attribute) and ast.unparse(function.value) in owners:
            assert not any(isinstance(argument, ast.Starred) for argument in arguments)
            found.append((function.attr, len(arguments)))
    return found


DRIVER = ("driver", "self._driver")


def test_every_name_of_the_cuda_driver_is_there() -> None:
    used = attributes(cuda, *DRIVER)
    assert len(used) > 25
    assert sorted(name for name in used if not hasattr(driver, name)) == []
    for owner in ("CUstream_flags", "CUmemorytype", "CUstreamCaptureMode"):
        members = attributes(cuda, f"driver.{owner}")
        assert members
        assert sorted(name for name in members if not hasattr(getattr(driver, owner), name)) == []


def test_every_call_of_the_cuda_driver_has_as_many_arguments_as_it_takes() -> None:
    checked = 0
    for name, count in calls(cuda, *DRIVER):
        if name.startswith("cu"):
            signature = (getattr(driver, name).__doc__ or "").strip().splitlines()[0]
            assert signature.startswith(f"{name}("), signature
            parameters = signature[len(name) + 1 : -1]
            assert count == len(parameters.split(",") if parameters else []), signature
            checked += 1
    assert checked > 25


def test_the_faked_driver_has_what_is_used_and_takes_as_many_arguments() -> None:
    for name, count in calls(cuda, *DRIVER):
        if name.startswith("cu"):
            assert len(inspect.signature(getattr(faked_gpu.FakedDriver, name)).parameters) == count + 1, name


def test_a_box_becomes_a_copy_order_of_the_real_structure() -> None:
    planes = {"source_pitch": 512, "source_rows": 7, "target_pitch": 1024, "target_rows": 9}
    box = addresses.Box(11, 13, width=256, height=6, depth=4, **planes)
    order = copy_order(driver, box, target=2**40, source=2**41)
    assert (int(order.srcDevice), int(order.dstDevice)) == (2**41 + 11, 2**40 + 13)
    assert order.srcMemoryType == order.dstMemoryType == driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
    assert (order.WidthInBytes, order.Height, order.Depth) == (256, 6, 4)
    assert (order.srcPitch, order.srcHeight, order.dstPitch, order.dstHeight) == (512, 7, 1024, 9)
    unset = ("srcXInBytes", "srcY", "srcZ", "srcLOD", "dstXInBytes", "dstY", "dstZ", "dstLOD")
    assert [getattr(order, name) for name in unset] == [0] * len(unset)


def test_out_of_memory_has_the_drivers_own_number() -> None:
    assert int(driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY) == cuda.OUT_OF_MEMORY
    assert {each.name: int(each) for each in faked_gpu.Result}.items() <= {
        each.name: int(each) for each in driver.CUresult
    }.items()


TRT = LIBRARY.trt
OWNERS = {
    TRT: attributes(engine, "trt", "library.trt", "self.library.trt", "self._loader.library.trt"),
    TRT.Runtime: attributes(engine, "self._runtime"),
    TRT.ICudaEngine: attributes(engine, "engine", "self._engine"),
    TRT.IExecutionContext: attributes(engine, "self._context"),
    TRT.IRuntimeConfig: attributes(engine, "config"),
    TRT.DynamicShapesKernelSpecializationStrategy: attributes(engine, "specialisation"),
    TRT.ExecutionContextAllocationStrategy: attributes(engine, "trt.ExecutionContextAllocationStrategy"),
    TRT.ILogger: attributes(log, "trt.ILogger") - {"__init__"},
}


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_every_name_of_tensorrt_is_there(owner: object) -> None:
    assert OWNERS[owner]
    assert sorted(name for name in OWNERS[owner] if not hasattr(owner, name)) == []


def test_what_is_used_unasked_is_in_tensorrt_10_3() -> None:
    used = set().union(*(OWNERS[owner] for owner in (TRT, TRT.Runtime, TRT.ICudaEngine, TRT.IExecutionContext)))
    assert used == IN_10_3 | SINCE


SIGNATURES = {
    (TRT.IExecutionContext, "set_optimization_profile_async"): ("profile_index", "stream_handle"),
    (TRT.IExecutionContext, "set_device_memory"): ("memory", "size"),
    (TRT.IExecutionContext, "set_input_shape"): ("name", "shape: tuple"),
    (TRT.IExecutionContext, "set_tensor_address"): ("name", "memory"),
    (TRT.IExecutionContext, "execute_async_v3"): ("stream_handle",),
    (TRT.IExecutionContext, "is_stream_capturable"): ("stream",),
    (TRT.ICudaEngine, "get_tensor_name"): ("index",),
    (TRT.ICudaEngine, "get_tensor_dtype"): ("name",),
    (TRT.ICudaEngine, "get_aliased_input_tensor"): ("name",),
    (TRT.ICudaEngine, "create_execution_context"): ("strategy", "runtime_config"),
    (TRT.Runtime, "deserialize_cuda_engine"): ("serialized_engine: typing_extensions.Buffer",),
    (TRT.IRuntimeConfig, "set_execution_context_allocation_strategy"): ("strategy",),
}


@pytest.mark.parametrize("which", SIGNATURES, ids=lambda which: which[1])
def test_tensorrts_methods_take_what_they_are_given(which: tuple[type, str]) -> None:
    text = getattr(*which).__doc__ or ""
    assert [argument for argument in SIGNATURES[which] if argument not in text] == []


def test_tensorrts_types_are_numpys() -> None:
    kinds = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "BOOL": np.bool_}
    for name, kind in kinds.items():
        assert np.dtype(TRT.nptype(getattr(TRT.DataType, name))) == np.dtype(kind)


def test_the_real_tensorrt_refuses_what_is_no_engine_beside_a_faked_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is real; only the CUDA driver, which it does not reach, is faked."""
    faked_gpu.install(monkeypatch)
    gpu, errors = Cuda(), log.LastErrors()
    loader = Loader(LIBRARY, gpu, log.logger(TRT, errors, None), errors, tmp_path)
    path = tmp_path / "vision.engine"
    path.write_bytes(b"not an engine" * 100)
    told = r"^tensorrt_rtx 1\..* cannot load .*vision\.engine \(.+\); expected .*--force$"
    with pytest.raises(BundleError, match=told) as error:
        loader.load(path, memoryview(path.read_bytes()), {})
    assert "\n" not in str(error.value)
    gpu.close()
