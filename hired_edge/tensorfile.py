"""The safetensors format in numpy: strict reading, mapped or by plain reads, and deterministic writing, by chunks too.

Format: an 8-byte little-endian header length, a JSON header of {name: {dtype, shape, data_offsets}}, then the data
without gaps. numpy has no bfloat16: BF16 reads as its raw bits, uint16 (`bfloat16_to_float32` widens them). The
file's content is never trusted: a header that claims more than the file holds is refused before anything is
allocated.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hired_edge import strict
from hired_edge.errors import CheckpointError, HiredEdgeError
from hired_edge.strict import show

MAX_HEADER_BYTES = 100_000_000
"""The cap of the safetensors library itself."""

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies."""

    dtype: str
    """The file's name for it: a key of DTYPES."""
    shape: tuple[int, ...]
    offset: int
    """Of the first byte, from the beginning of the file."""
    nbytes: int


class TensorFile:
    """A safetensors file whose header was checked. Data is read on demand; nothing stays open between reads.

    Args:
        path: the file.
        error: what to raise: `CheckpointError` for a checkpoint's file, `BundleError` for a bundle's.

    Raises:
        HiredEdgeError: of the class `error`: missing, unreadable, truncated or malformed.
    """

    def __init__(self, path: Path, error: type[HiredEdgeError] = CheckpointError) -> None:
        self.path = path
        self._error = error
        try:
            self._tensors = self._read_header()
        except OSError as failure:
            self._refuse(f"cannot be read ({failure.strerror or failure})", "a safetensors file")

    @property
    def names(self) -> tuple[str, ...]:
        """Tensors in the order of their data."""
        return tuple(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """What the header says of a tensor.

        Raises:
            HiredEdgeError: no such tensor.
        """
        if name not in self._tensors:
            self._refuse(f"has no tensor {show(name)}", f"one of its {len(self._tensors)} tensors")
        return self._tensors[name]

    def mapped(self, name: str) -> NDArray[Any]:
        """A tensor as a read-only view of the file's pages, which the system may drop again. BF16 comes as uint16."""
        info = self.info(name)
        if info.nbytes == 0:
            return np.empty(info.shape, DTYPES[info.dtype])
        try:
            return np.memmap(self.path, DTYPES[info.dtype], mode="r", offset=info.offset, shape=info.shape)
        except (OSError, ValueError) as failure:  # ValueError: the file shrank since the header was read
            self._refuse(f"cannot be mapped ({strict.one_line(failure)})", "the file as it was opened")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """A copy of a tensor, or of its rows `start` to `stop`, read without mapping anything. BF16 comes as uint16.

        Args:
            name: of the tensor.
            start, stop: a half-open range of the first axis, 0 <= start <= stop; without a first axis, leave them out.
        """
        info = self.info(name)
        shape, offset = info.shape, info.offset
        if shape:
            stop = shape[0] if stop is None else min(stop, shape[0])
            assert 0 <= start <= stop, (start, stop)
            offset += start * (info.nbytes // shape[0] if shape[0] else 0)
            shape = (stop - start, *shape[1:])
        array = np.empty(shape, DTYPES[info.dtype])
        view = array.reshape(-1).view(np.uint8).data
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                while view.nbytes:
                    count = file.readinto(view)
                    if not count:
                        self._refuse(f"ends inside {show(name)}", "the file as it was opened")
                    view = view[count:]
        except OSError as failure:
            self._refuse(f"cannot be read ({failure.strerror or failure})", "a safetensors file")
        return array

    def _read_header(self) -> dict[str, TensorInfo]:
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                self._refuse(f"has {size} bytes and a header of {length}", "a whole safetensors file")
            text = file.read(length)
        header = self._parse(text)
        spans = sorted((self._span(name, entry), name) for name, entry in header.items() if name != "__metadata__")
        position, tensors = 0, {}
        for (begin, end, dtype, shape), name in spans:
            if begin != position:
                self._refuse(f"has {show(name)} at byte {begin} of its data", f"{position}, without gap or overlap")
            tensors[name] = TensorInfo(dtype, shape, 8 + length + begin, end - begin)
            position = end
        if 8 + length + position != size:
            self._refuse(f"has {size} bytes", f"{8 + length + position}, by its header")
        return tensors

    def _parse(self, text: bytes) -> dict[str, Any]:
        try:
            header = strict.loads(text.decode("utf-8"), "the header")
        except UnicodeDecodeError:
            self._refuse("has a header that is not UTF-8", "a JSON header")
        except HiredEdgeError as failure:
            self._refuse(f"is malformed: {failure.got}", failure.expected)
        if not isinstance(header, dict):
            self._refuse("has a header that is no JSON object", "a JSON header")
        return header

    def _span(self, name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...]]:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            self._refuse(f"has a malformed entry {show(name)}", "dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            self._refuse(f"has {show(name)} of dtype {show(dtype)}", f"one of {', '.join(DTYPES)}")
        if not _naturals(shape) or len(shape) > 32:
            self._refuse(f"has {show(name)} of a malformed shape", "a list of sizes")
        if not _naturals(offsets) or len(offsets) != 2:
            self._refuse(f"has {show(name)} at malformed data_offsets", "[begin, end]")
        begin, end = offsets
        nbytes = math.prod(shape) * DTYPES[dtype].itemsize
        if math.prod(size or 1 for size in shape) >= 2**59:  # numpy cannot hold such a shape, even if a size is 0
            self._refuse(f"has {show(name)} of a shape beyond 64 bits", "sizes of a real tensor")
        if end - begin != nbytes:
            self._refuse(f"has {end - begin} bytes for {show(name)}", f"{nbytes}, by its shape and dtype")
        return begin, end, dtype, tuple(shape)

    def _refuse(self, got: str, expected: str) -> NoReturn:
        raise self._error(f"{self.path} {got}", expected=expected, fix="download or copy the file again") from None


class TensorWriter:
    """Writes a safetensors file piece by piece, in the declared order, holding no more than the piece at hand.

    Use as a context manager; leaving it by an exception removes the file. Errors of the disk are left as `OSError`.

    Args:
        path: the file, written over if it exists.
        tensors: {name: (dtype, shape)}, in the order in which they will be written; a dtype is a key of DTYPES.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        header, position = {}, 0
        self._pending: list[tuple[str, str, int]] = []  # (name, dtype, bytes that are still to come)
        for name, (dtype, shape) in tensors.items():
            nbytes = math.prod(shape) * DTYPES[dtype].itemsize
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
            self._pending.append((name, dtype, nbytes))
            position += nbytes
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # so that the data begins aligned
        self._path = path
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, chunk: NDArray[Any]) -> None:
        """Append a chunk (whole rows, in order) of `name`, which must be the next of the declared tensors."""
        while len(self._pending) > 1 and self._pending[0][0] != name and self._pending[0][2] == 0:
            self._pending.pop(0)
        expected, dtype, left = self._pending[0]
        assert expected == name, f"{name} was written where {expected} was declared"
        assert chunk.dtype == DTYPES[dtype], f"{name} is {chunk.dtype} and was declared {dtype}"
        assert chunk.nbytes <= left, f"{name} is longer than declared"
        self._file.write(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
        self._pending[0] = (name, dtype, left - chunk.nbytes)

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        missing = [name for name, _, left in self._pending if left]
        try:
            self._file.close()  # flushes, so a full disk may show only here
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        if kind is not None or missing:
            self._path.unlink(missing_ok=True)
        assert kind is not None or not missing, f"left unwritten: {missing}"


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to a safetensors file: the same arrays give the same bytes. uint16 is written as U16, never as BF16.

    The order is that of the safetensors library: wide types first, so that all data is aligned, then by name.
    """
    arrays = {name: np.asarray(array) for name, array in tensors.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    declared = {name: (_NAMES[arrays[name].dtype.newbyteorder("<")], arrays[name].shape) for name in order}
    with TensorWriter(path, declared) as writer:
        for name in order:
            writer.write(name, arrays[name].astype(DTYPES[declared[name][0]], copy=False))


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen raw bfloat16 bits, exactly; besides the result nothing of its size is held."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)
