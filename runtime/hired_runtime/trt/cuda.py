"""The CUDA driver as a backend needs it: one GPU, one stream, memory that is allocated and released explicitly.

The driver API, not the runtime: it asks for no CUDA toolkit. cuda-bindings must still be of the driver's major version
(12 on JetPack 6): jetson/install.sh sees to it, and `doctor` says so. TensorRT uses the GPU's primary context, and so
does this. Every call is checked: a failure is one line with CUDA's name for it. It knows nothing of tensors.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hired_edge.errors import BundleError, HiredEdgeError, InputError, OutOfMemoryError
from hired_runtime.trt.addresses import Box

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


@dataclass(frozen=True)
class DeviceBlock:
    """Memory on the device."""

    address: int
    nbytes: int


@dataclass(frozen=True)
class HostBlock:
    """Page-locked memory of the host, which copies to and from the device need to run by themselves.

    Attributes:
        bytes: (nbytes) uint8, all of it. It must not be touched after `Cuda.close`.
    """

    address: int
    bytes: NDArray[np.uint8]


class Cuda:
    """The first GPU, ready for use by the thread that made it; other threads call `use` first.

    Raises:
        BundleError: there is no GPU that works.
    """

    def __init__(self) -> None:
        driver: Any = importlib.import_module("cuda.bindings.driver")
        self._driver = driver
        self._cleanup = contextlib.ExitStack()
        self._closed = False
        self._check(driver.cuInit(0), "start")
        device = self._check(driver.cuDeviceGet(0), "find the first GPU")
        self._context = self._check(driver.cuDevicePrimaryCtxRetain(device), "make a context")
        self._cleanup.callback(driver.cuDevicePrimaryCtxRelease, device)
        try:
            self.use()
            flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = self._check(driver.cuStreamCreate(int(flags)), "make a stream")
        except BaseException:
            self.close()
            raise
        self._cleanup.callback(driver.cuStreamDestroy, self._stream)

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream)

    def use(self) -> None:
        """Makes the GPU this thread's own: CUDA keeps that by the thread. Every request begins with it.

        Raises:
            InputError: all was released: to touch that memory would end the process.
        """
        if self._closed:
            raise InputError(
                "a request to a model that was closed", expected="an open one", fix="open the bundle again"
            )
        self._check(self._driver.cuCtxSetCurrent(self._context), "use its context")

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        free, total = self._check(self._driver.cuMemGetInfo(), "tell its memory")
        return int(free), int(total)

    def allocate(self, nbytes: int, what: str) -> DeviceBlock:
        """Memory on the device, zero-filled, until `close`.

        Raises:
            BundleError: there is not so much.
        """
        nbytes = max(1, nbytes)
        address = int(self._check(self._driver.cuMemAlloc(nbytes), f"allocate {nbytes} bytes for {what}"))
        self._cleanup.callback(self._driver.cuMemFree, address)
        block = DeviceBlock(address, nbytes)
        self.zero(block)
        return block

    def allocate_host(self, nbytes: int, what: str) -> HostBlock:
        """Page-locked memory of the host, zero-filled, until `close`.

        Raises:
            BundleError: there is not so much.
        """
        nbytes = max(1, nbytes)
        asked = f"allocate {nbytes} page-locked bytes for {what}"
        address = int(self._check(self._driver.cuMemAllocHost(nbytes), asked))
        self._cleanup.callback(self._driver.cuMemFreeHost, address)
        array = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
        array[:] = 0
        return HostBlock(address, array)

    def zero(self, block: DeviceBlock) -> None:
        self._check(self._driver.cuMemsetD8Async(block.address, 0, block.nbytes, self._stream), "fill with zeros")

    def to_device(self, target: DeviceBlock, source: HostBlock, nbytes: int) -> None:
        """Copies the first `nbytes` bytes."""
        assert nbytes <= min(target.nbytes, source.bytes.nbytes), nbytes
        done = self._driver.cuMemcpyHtoDAsync(target.address, source.address, nbytes, self._stream)
        self._check(done, "copy to the GPU")

    def to_host(
        self, target: HostBlock, source: DeviceBlock, nbytes: int, *, target_offset: int = 0, source_offset: int = 0
    ) -> None:
        """Copies `nbytes` bytes from one offset to the other."""
        assert target_offset + nbytes <= target.bytes.nbytes, (target_offset, nbytes)
        assert source_offset + nbytes <= source.nbytes, (source_offset, nbytes)
        end, start = target.address + target_offset, source.address + source_offset
        self._check(self._driver.cuMemcpyDtoHAsync(end, start, nbytes, self._stream), "copy from the GPU")

    def copy(self, box: Box, target: DeviceBlock, source: DeviceBlock) -> None:
        """One strided copy on the device."""
        order = copy_order(self._driver, box, target.address, source.address)
        self._check(self._driver.cuMemcpy3DAsync(order, self._stream), "copy on the GPU")

    def synchronise(self) -> None:
        """Waits until all that was asked for is done.

        Raises:
            BundleError: any of it failed.
        """
        self._check(self._driver.cuStreamSynchronize(self._stream), "finish its work")

    def capture(self, work: Callable[[], None]) -> tuple[Any | None, str]:
        """What `work` asks of the stream, as a CUDA graph; nothing of it is run.

        Returns:
            The graph for `launch`, and ""; or None, and why it could not be had: the stream is then as before.
        """
        driver, reason = self._driver, ""
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._check(driver.cuStreamBeginCapture(self._stream, mode), "begin a capture")
        try:
            work()
        except HiredEdgeError as error:  # not an error of the user's: the same work is done without a graph
            reason = error.got
        ended, graph = driver.cuStreamEndCapture(self._stream)
        if int(ended):
            return None, reason or self._named(ended)
        made, executable = (ended, None) if reason else driver.cuGraphInstantiate(graph, 0)
        driver.cuGraphDestroy(graph)
        if reason or int(made):
            return None, reason or self._named(made)
        self._cleanup.callback(driver.cuGraphExecDestroy, executable)
        return executable, ""

    def launch(self, graph: Any) -> None:
        self._check(self._driver.cuGraphLaunch(graph, self._stream), "launch a graph")

    def on_close(self, release: Callable[[], None]) -> None:
        """Calls `release` at `close`, before what was allocated earlier is released."""
        self._cleanup.callback(release)

    def close(self) -> None:
        """Waits for what is under way, then releases everything, the last first. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._driver.cuCtxSetCurrent(self._context)  # unchecked, as all that follows: nothing can be done about it
        if hasattr(self, "_stream"):
            self._driver.cuStreamSynchronize(self._stream)
        self._cleanup.close()

    def _check(self, result: tuple[Any, ...], what: str) -> Any:
        """The values that a call returned behind its error code: None, the value, or all of them."""
        error, *values = result
        if int(error):
            raise self._failure(error, what)
        return values[0] if len(values) == 1 else tuple(values) or None

    def _failure(self, error: Any, what: str) -> BundleError:
        if int(error) != OUT_OF_MEMORY:
            return BundleError(
                f"CUDA cannot {what} ({self._named(error)})",
                expected="a GPU and a driver that work",
                fix="run `hired-edge doctor`; after an illegal address or a launch failure, start the process again",
            )
        error, free, total = self._driver.cuMemGetInfo()
        left = "" if int(error) else f"; {int(free) / 2**30:.2f} of {int(total) / 2**30:.2f} GiB are free"
        return OutOfMemoryError(
            f"CUDA cannot {what} ({self._named(OUT_OF_MEMORY)}{left})",
            expected="memory for the weights, the cache and the buffers",
            fix="open with a smaller --visual-tokens or fewer rows, or end other programs; see `hired-edge plan`",
        )

    def _named(self, error: Any) -> str:
        """ "CUDA_ERROR_OUT_OF_MEMORY: out of memory"."""
        return decoded(self._driver, error)


def copy_order(driver: Any, box: Box, target: int, source: int) -> Any:
    """A box as a CUDA_MEMCPY3D, between blocks that begin at these addresses."""
    order = driver.CUDA_MEMCPY3D()
    order.srcMemoryType = order.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
    order.srcDevice, order.dstDevice = source + box.source, target + box.target
    order.srcPitch, order.srcHeight = box.source_pitch, box.source_rows
    order.dstPitch, order.dstHeight = box.target_pitch, box.target_rows
    order.WidthInBytes, order.Height, order.Depth = box.width, box.height, box.depth
    return order


def decoded(driver: Any, error: Any) -> str:
    """CUDA's name of an error, and what it means; its number where the driver does not know it."""
    code = driver.CUresult(int(error))
    (named, name), (described, text) = driver.cuGetErrorName(code), driver.cuGetErrorString(code)
    if int(named) or int(described):
        return f"CUDA error {int(error)}"
    return f"{name.decode()}: {text.decode()}"
