"""A faked CUDA driver (cuda.bindings.driver), whose device memory is the host's: see `faked_gpu`."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from types import ModuleType
from typing import Any

SM = 87


class Result(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900


class Order:
    """CUDA_MEMCPY3D: its fields are set one by one."""

    def __init__(self) -> None:
        self.__dict__.update(dict.fromkeys(("srcXInBytes", "srcY", "srcZ", "dstXInBytes", "dstY", "dstZ"), 0))


class FakedDriver(ModuleType):
    """cuda.bindings.driver.

    Attributes:
        live: address -> memory that was allocated and not freed.
        limit: bytes of device memory.
        capturable: whether a capture works.
        launches: CUDA graphs that were launched.
    """

    CUresult, CUDA_MEMCPY3D = Result, Order
    CUstream_flags = enum.IntEnum("CUstream_flags", {"CU_STREAM_DEFAULT": 0, "CU_STREAM_NON_BLOCKING": 1})
    CUmemorytype = enum.IntEnum("CUmemorytype", {"CU_MEMORYTYPE_HOST": 1, "CU_MEMORYTYPE_DEVICE": 2})
    CUstreamCaptureMode = enum.IntEnum("CUstreamCaptureMode", {"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1})
    CUdevice_attribute = enum.IntEnum(
        "CUdevice_attribute",
        {"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 75, "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": 76},
    )

    def __init__(self, gpus: int = 1) -> None:
        super().__init__("cuda.bindings.driver")
        self.gpus, self.limit, self.capturable, self.launches = gpus, 2**34, True, 0
        self.live: dict[int, Any] = {}
        self.pinned: set[int] = set()
        self.streams = self.contexts = 0
        self._queue: list[Callable[[], None]] = []
        self._captured: list[Callable[[], None]] | None = None

    # Device and context

    def cuInit(self, flags: int) -> tuple:
        return (Result(0),)

    def cuDriverGetVersion(self) -> tuple:
        return Result(0), 13020

    def cuDeviceGetCount(self) -> tuple:
        return Result(0), self.gpus

    def cuDeviceGet(self, ordinal: int) -> tuple:
        return Result(0), ordinal

    def cuDeviceGetName(self, length: int, device: int) -> tuple:
        return Result(0), b"Faked GPU".ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple:
        return Result(0), SM // 10 if int(attribute) == 75 else SM % 10

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple:
        self.contexts += 1
        return Result(0), "context"

    def cuDevicePrimaryCtxRelease(self, device: int) -> tuple:
        self.contexts -= 1
        return (Result(0),)

    def cuCtxSetCurrent(self, context: str) -> tuple:
        return (Result(0),)

    def cuGetErrorName(self, error: Result) -> tuple:
        return Result(0), error.name.encode()

    def cuGetErrorString(self, error: Result) -> tuple:
        return Result(0), error.name.removeprefix("CUDA_ERROR_").replace("_", " ").lower().encode()

    # Memory

    def cuMemGetInfo(self) -> tuple:
        return Result(0), self.limit - self._used(), self.limit

    def cuMemAlloc(self, size: int) -> tuple:
        if self._used() + size > self.limit:
            return Result.CUDA_ERROR_OUT_OF_MEMORY, 0
        return Result(0), self._allocate(size)

    def cuMemAllocHost(self, size: int) -> tuple:
        address = self._allocate(size)
        self.pinned.add(address)
        return Result(0), address

    def cuMemFree(self, address: int) -> tuple:
        del self.live[int(address)]
        return (Result(0),)

    def cuMemFreeHost(self, address: int) -> tuple:
        self.pinned.remove(int(address))
        return self.cuMemFree(address)

    def cuMemsetD8Async(self, address: int, value: int, size: int, stream: str) -> tuple:
        return self._later(lambda: ctypes.memset(self.inside(address, size), value, size))

    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: str) -> tuple:
        return self._later(lambda: ctypes.memmove(self.inside(target, size), self.inside(source, size), size))

    cuMemcpyDtoHAsync = cuMemcpyHtoDAsync

    def cuMemcpy3DAsync(self, order: Any, stream: str) -> tuple:
        def copy() -> None:
            for plane in range(order.Depth):
                for row in range(order.Height):
                    source = order.srcDevice + (plane * order.srcHeight + row) * order.srcPitch
                    target = order.dstDevice + (plane * order.dstHeight + row) * order.dstPitch
                    size = order.WidthInBytes
                    ctypes.memmove(self.inside(target, size), self.inside(source, size), size)

        assert order.WidthInBytes <= min(order.srcPitch, order.dstPitch)
        return self._later(copy)

    def inside(self, address: int, size: int) -> int:
        """`address`, if all of it lies in one piece of live memory."""
        address = int(address)
        for start, memory in self.live.items():
            if start <= address and address + size <= start + len(memory):
                return address
        raise AssertionError(f"{size} bytes at {address:#x} are not allocated")

    def _allocate(self, size: int) -> int:
        memory = (ctypes.c_uint8 * (size + 512))()
        ctypes.memset(memory, 0xA5, len(memory))  # what a step does not write is not zero by chance
        address = -(-ctypes.addressof(memory) // 256) * 256
        view = (ctypes.c_uint8 * size).from_buffer(memory, address - ctypes.addressof(memory))
        self.live[address] = view
        return address

    def _used(self) -> int:
        return sum(len(memory) for address, memory in self.live.items() if address not in self.pinned)

    # Stream and graphs

    def cuStreamCreate(self, flags: int) -> tuple:
        assert isinstance(flags, int)
        self.streams += 1
        return Result(0), 7

    def cuStreamDestroy(self, stream: int) -> tuple:
        self.streams -= 1
        return (Result(0),)

    def cuStreamSynchronize(self, stream: int) -> tuple:
        queue, self._queue = self._queue, []
        for work in queue:
            work()
        return (Result(0),)

    @property
    def capturing(self) -> bool:
        return self._captured is not None

    def _later(self, work: Callable[[], Any]) -> tuple:
        (self._queue if self._captured is None else self._captured).append(work)
        return (Result(0),)

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple:
        assert not self._queue, "a capture begins with an idle stream"
        self._captured = []
        return (Result(0),)

    def cuStreamEndCapture(self, stream: int) -> tuple:
        graph, self._captured = self._captured, None
        return (Result(0), graph) if self.capturable else (Result.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, None)

    def cuGraphInstantiate(self, graph: list, flags: int) -> tuple:
        return Result(0), tuple(graph)

    def cuGraphDestroy(self, graph: list) -> tuple:
        return (Result(0),)

    def cuGraphExecDestroy(self, graph: tuple) -> tuple:
        return (Result(0),)

    def cuGraphLaunch(self, graph: tuple, stream: int) -> tuple:
        self.launches += 1
        self._queue += graph
        return (Result(0),)
