"""A file of tensors beside a graph, written in order: aligned, hashed while it is written, continued where it stopped.

Offsets are aligned to 64 bytes, from 1 MiB on to 4096, so that a runtime may map them. What lies where follows from
the tensors' sizes alone, so a file that is continued is byte for byte one that was written in one go.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hired_edge.errors import CheckpointError
from hired_edge.manifest import FileRecord
from hired_export.journal import Entry, Journal, shortened

Result = TypeVar("Result")

THREADS = min(4, len(os.sched_getaffinity(0)))
"""Of a file. More would hold more of the model, and a disk is not faster than four."""
AHEAD = 2 * THREADS
"""Results that may wait to be written."""
READ = 2**22


class ExternalData:
    """Use as a context manager.

    Args:
        graph_file: the data's name is this one's with ".data" after it.
        journal: what a stopped export wrote of it, and where this one says what it writes; None = nothing, nowhere.
        name: the data's, in the journal.
    """

    def __init__(self, graph_file: Path, journal: Journal | None = None, name: str = "") -> None:
        self.path = graph_file.with_name(graph_file.name + ".data")
        self._journal, self._name = journal, name
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b", buffering=0)
        self._digest = hashlib.sha256()
        self._position = 0
        self._kept = {entry.name: entry for entry in self._read()}
        self._file.seek(self._position)
        self._file.truncate()
        self._end = 0  # of the tensors that were asked for so far, kept ones included
        self._threads = ThreadPoolExecutor(THREADS, "weights")

    def __enter__(self) -> ExternalData:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._file.close()

    def _read(self) -> Iterator[Entry]:
        """The journal's entries for which the file holds what they say; the digest is then that of them."""
        for entry in [] if self._journal is None else self._journal.of(self._name):
            digest, left = self._digest.copy(), entry.end - self._position
            while left > 0 and (part := self._file.read(min(READ, left))):
                digest.update(part)
                left -= len(part)
            if left or shortened(digest.hexdigest()) != entry.digest:
                return
            self._digest, self._position = digest, entry.end
            yield entry

    @property
    def record(self) -> FileRecord:
        """Of what is written by now."""
        return FileRecord(self._position, self._digest.hexdigest())

    def kept(self, name: str) -> Entry | None:
        """What the journal says of a tensor that is there already; None: it is to be written."""
        return self._kept.get(name)

    def done(self, name: str, error: float | None = None) -> None:
        """The tensor `name` is whole: everything up to here is to be kept."""
        if self._journal is not None:
            digest = shortened(self._digest.hexdigest())
            self._journal.add(Entry(self._name, name, self._position, digest, error))

    def skip(self, value: ir.Value) -> None:
        """Makes `value` refer to the bytes that are there."""
        self._place(value)

    def write(self, value: ir.Value, chunks: Iterable[NDArray]) -> None:
        """Writes a tensor's bytes and makes `value` refer to them.

        Args:
            value: of a float type, which chunks are rounded to; or of an integer type, whose chunks are stored as given
                (int4 as bytes, the earlier element in the low half).
            chunks: add up to the value's shape.

        Raises:
            CheckpointError: a number is beyond the type that it is stored in.
        """
        offset = self._place(value)
        self._append(memoryview(bytes(offset - self._position)))
        for chunk in chunks:
            self._append(rounded(value, chunk).reshape(-1).view(np.uint8).data)
        assert self._position == self._end, f"{value.name}: {self._position - offset} bytes written"

    def ahead(self, parts: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """Calls each part in a thread and yields what it returns, in order; a few are computed ahead."""
        waiting: deque[Future[Result]] = deque()
        try:
            for part in parts:
                waiting.append(self._threads.submit(part))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def write_parts(self, value: ir.Value, parts: Iterable[Callable[[], NDArray]]) -> None:
        """As `write`, of chunks that are made and rounded in threads."""
        self.write(value, self.ahead(partial(_made, value, part) for part in parts))

    def _place(self, value: ir.Value) -> int:
        assert value.shape is not None
        assert value.dtype is not None
        size = int(math.prod(value.shape.numpy()) * value.dtype.itemsize)  # an itemsize may be half a byte
        alignment = 4096 if size >= 2**20 else 64
        offset = -(-self._end // alignment) * alignment
        self._end = offset + size
        name = os.path.basename(self.path)
        value.const_value = ir.ExternalTensor(name, offset, size, value.dtype, shape=value.shape, name=str(value.name))
        return offset

    def _append(self, part: memoryview) -> None:
        self._digest.update(part)
        self._position += part.nbytes
        while part.nbytes:
            part = part[self._file.write(part) :]


def rounded(value: ir.Value, chunk: NDArray) -> NDArray:
    """The chunk as it is stored; the same array where it is so already."""
    assert value.dtype is not None
    with refusing_overflow(str(value.name)):
        return np.ascontiguousarray(chunk, value.dtype.numpy() if value.dtype.is_floating_point() else None)


def _made(value: ir.Value, part: Callable[[], NDArray]) -> NDArray:
    return rounded(value, part())


@contextlib.contextmanager
def refusing_overflow(name: str) -> Iterator[None]:
    """Numbers of the tensor `name` that are too large for the type they are rounded to are an error, not infinity."""
    try:
        with np.errstate(over="raise"):
            yield
    except FloatingPointError:
        raise CheckpointError(
            f"tensor {name} holds numbers too large for the type that it is stored in",
            expected="float16 weights and scales of at most 65504",
            fix="export with --target cpu --precision fp32, or use another checkpoint",
        ) from None
