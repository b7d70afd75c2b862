"""The tar files that `pack` writes and `unpack` reads: POSIX 1003.1-2001 (pax), and of it only what a bundle needs.

Written are plain files, mode 0644, without owner or time: names of up to 100 bytes and sizes below 8 GiB in a ustar
header, others in a pax header before it. Read are plain files, in pax, ustar or GNU's header, in any order; whatever
else a tar may hold (folders, links, devices, sparse files, GNU's long names, global headers) is refused by its kind.
Nothing is believed that a header claims: every length is bounded before it is read. It knows no bundle.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NoReturn

from hired_edge.errors import BundleError
from hired_edge.strict import show

BLOCK = 512
RECORD = 20 * BLOCK
"""GNU tar's blocking factor: a tar is a multiple of it, zeros at its end."""
MOST_MEMBERS = 10_000
MAX_PAX_BYTES = 2**14
MAX_END_BYTES = 2**20
"""Zeros behind the last file."""

_NAME_BYTES, _SIZE_LIMIT = 100, 8**11
_PAX_NAME = "././@PaxHeader"
_IGNORED = ("atime", "ctime", "mtime", "uid", "gid", "uname", "gname", "comment")
"""What a pax header may say that changes neither name nor content."""
_KINDS = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a device",
    "4": "a device",
    "5": "a folder",
    "6": "a pipe",
    "7": "a contiguous file",
    "D": "a dumped folder",
    "K": "GNU's long link name",
    "L": "GNU's long name",
    "M": "a file's second volume",
    "S": "a sparse file",
    "V": "a volume's name",
    "X": "Solaris' header",
    "g": "a global header",
}
_MAGIC_POSIX, _MAGIC_GNU = b"ustar\x0000", b"ustar  \x00"
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_MEND = "pack it again: hired-edge pack, or tar --format=pax with the files' names alone"


@dataclass(frozen=True)
class Member:
    """One file in a tar: where its content lies."""

    name: str
    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """What comes before a file's content: the same for the same name and size, whoever writes it, and when."""
    records, short = {}, name.encode()
    if len(short) > _NAME_BYTES:
        records["path"], short = name, short[:_NAME_BYTES]
    if size >= _SIZE_LIMIT:
        records["size"] = str(size)
    extended = b"".join(_record(key, value) for key, value in records.items())
    before = _ustar(_PAX_NAME.encode(), len(extended), b"x") + extended + padding(len(extended)) if extended else b""
    return before + _ustar(short, 0 if "size" in records else size, b"0")


def padding(size: int) -> bytes:
    """Zeros up to the next block."""
    return bytes(-size % BLOCK)


def end(size: int) -> bytes:
    """What comes behind the last file of a tar of `size` bytes so far."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)


def read_members(handle: int, where: object) -> dict[str, Member]:
    """Every file of a tar, by its name. No content is read.

    Args:
        handle: of the file, open for reading; it may be looked at in any order.
        where: the file, for messages.

    Raises:
        BundleError: not a tar, cut off, or one that holds anything but plain files, each once.
        OSError: it cannot be read.
    """
    return _Reader(handle, where).read()


def _record(key: str, value: str) -> bytes:
    """ "LENGTH key=value\\n", where LENGTH counts itself."""
    text = f" {key}={value}\n".encode()
    length = len(text)
    while len(text) + len(str(length)) != length:
        length = len(text) + len(str(length))
    return str(length).encode() + text


def _ustar(name: bytes, size: int, kind: bytes) -> bytes:
    """One block."""
    fields = (
        name.ljust(_NAME_BYTES, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,  # mode, owner, group
        b"%011o\0" % size,
        b"%011o\0" % 0,  # time
        b" " * 8,  # the checksum, while it is counted
        kind + bytes(100),  # no link
        _MAGIC_POSIX + bytes(64),  # no names of owner and group
        b"0000000\0" * 2,  # no device
        bytes(167),
    )
    block = b"".join(fields)
    assert len(block) == BLOCK
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


class _Reader:
    def __init__(self, handle: int, where: object) -> None:
        self._handle, self._where = handle, where
        self._size = os.fstat(handle).st_size

    def read(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        at, extended = 0, None
        while (block := self._bytes(at, BLOCK)) != bytes(BLOCK):
            name, size, kind = self._fields(block)
            at += BLOCK
            if kind == "x":
                if extended is not None or size > MAX_PAX_BYTES:
                    self._refuse(f"has a pax header of {size} bytes" if extended is None else "has two pax headers")
                extended = self._pax(self._bytes(at, size))
            else:
                name, size = self._overridden(name, size, extended or {})
                if kind not in ("0", "\0"):
                    self._refuse(f"holds {_KINDS.get(kind, 'something unknown')}, {show(name)}")
                if name in found:
                    self._refuse(f"holds {show(name)} twice")
                if len(found) == MOST_MEMBERS:
                    self._refuse(f"holds more than {MOST_MEMBERS} files")
                found[name], extended = Member(name, at, size), None
            at += size + -size % BLOCK
        if extended is not None:
            self._refuse("ends with a pax header")
        self._check_end(at)
        return found

    def _fields(self, block: bytes) -> tuple[str, int, str]:
        """Name, size and kind of a header block."""
        if block[257:265] not in (_MAGIC_POSIX, _MAGIC_GNU):
            self._refuse("is not a tar file")
        if self._octal(block[148:156]) != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
            self._refuse("has a damaged header")
        size = self._octal(block[124:136])
        name = block[:100].rstrip(b"\0")
        prefix = block[345:500].rstrip(b"\0") if block[257:265] == _MAGIC_POSIX else b""
        return self._text(prefix + b"/" + name if prefix else name), size, chr(block[156])

    def _pax(self, data: bytes) -> dict[str, str]:
        records: dict[str, str] = {}
        while data:
            length, _, _ = data.partition(b" ")
            if not re.fullmatch(rb"[1-9][0-9]{0,5}", length) or int(length) > len(data):
                self._refuse("has a damaged pax header")
            record, data = data[len(length) + 1 : int(length)], data[int(length) :]
            key, equals, value = record.partition(b"=")
            if not equals or not value.endswith(b"\n"):
                self._refuse("has a damaged pax header")
            word = self._text(key)
            if word in records or word not in ("path", "size", *_IGNORED):
                self._refuse(f"has a pax header with {show(word)}{' twice' if word in records else ''}")
            records[word] = self._text(value[:-1])
        return records

    def _overridden(self, name: str, size: int, records: dict[str, str]) -> tuple[str, int]:
        text = records.get("size", str(size))
        if not re.fullmatch(r"[0-9]{1,18}", text):
            self._refuse(f"has a file of size {show(text)}")
        return records.get("path", name), int(text)

    def _check_end(self, at: int) -> None:
        """Two blocks of zeros, and nothing but zeros behind them."""
        if not 2 * BLOCK <= self._size - at <= MAX_END_BYTES:
            self._refuse("has no proper end")
        if self._bytes(at, self._size - at).strip(b"\0"):
            self._refuse("holds something behind its end")

    def _bytes(self, at: int, size: int) -> bytes:
        data = os.pread(self._handle, size, at) if at + size <= self._size else b""
        if len(data) != size:
            self._refuse("is cut off")
        return data

    def _octal(self, field: bytes) -> int:
        match = _OCTAL.fullmatch(field)
        if match is None:
            self._refuse("has a number that is not octal")
        return int(match[1], 8)

    def _text(self, data: bytes) -> str:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._refuse("has a name that is not UTF-8")
        if "\0" in text:
            self._refuse("has a name that ends before its end")
        return text

    def _refuse(self, got: str) -> NoReturn:
        raise BundleError(f"{self._where} {got}", expected="a tar of a bundle's plain files, each once", fix=_MEND)
