"""`OUT.partial/journal`: what of an unfinished bundle is whole, so that a stopped export can go on from there.

    first line    what is being exported (`identity.py`): with anything else nothing is kept
    other lines   [file, name, end, digest, error]: a tensor, written up to the byte `end` of a file

The digest is that of the file's first `end` bytes. Whoever goes on reads them again, and keeps what agrees: so nothing
has to be forced to the disk while it is written, and a line that arrived there before its bytes does no harm.
What it does not know: what the tensors are.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One tensor that is written.

    Args:
        file: of the bundle, by its POSIX path.
        name: the tensor's.
        end: bytes of the file, this tensor included.
        digest: of the file's first `end` bytes, as `shortened` gives it.
        error: that of its quantisation; None where it is not quantised.
    """

    file: str
    name: str
    end: int
    digest: str
    error: float | None


class Journal:
    """Read where it is of the same export, begun anew where not. Use as a context manager.

    Args:
        path: the file, which its folder's owner alone may touch.
        about: what is being exported, one line.
    """

    def __init__(self, path: Path, about: str) -> None:
        self._entries = _read(path, about)
        lines = [about, *(_line(entry) for entry in self._entries)]
        self._file = open(path, "wb", buffering=0, opener=_opener)  # noqa: SIM115
        try:
            self._file.write("".join(f"{line}\n" for line in lines).encode())
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    @property
    def files(self) -> frozenset[str]:
        """Those that hold a whole tensor."""
        return frozenset(entry.file for entry in self._entries)

    @property
    def bytes(self) -> int:
        """Written by now, in all files."""
        return sum({entry.file: entry.end for entry in self._entries}.values())

    def of(self, file: str) -> list[Entry]:
        """A file's tensors, in the order in which they were written."""
        return [entry for entry in self._entries if entry.file == file]

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._file.write(f"{_line(entry)}\n".encode())


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _line(entry: Entry) -> str:
    return json.dumps(astuple(entry))


def shortened(sha256: str) -> str:
    """Half of it tells bytes apart that nobody has forged."""
    return sha256[:32]


def _read(path: Path, about: str) -> list[Entry]:
    try:
        with open(path, "rb", opener=_opener) as file:
            first, *lines = file.read().decode("utf-8", errors="replace").splitlines() or [""]
    except OSError:  # there is none, or nothing that can be read
        return []
    return list(_entries(lines)) if first == about else []


def _entries(lines: list[str]) -> Iterator[Entry]:
    """Up to the first line that is none: the last one may be cut off."""
    with contextlib.suppress(ValueError, TypeError):
        for line in lines:
            yield Entry(*json.loads(line))
