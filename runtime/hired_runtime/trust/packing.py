"""A bundle as one file: an uncompressed tar whose bytes depend on the bundle's content and on nothing else.

First the manifest, then its signature if it has one, then the files by name; with engines, each folder's record, its
signature and its engines. Every file is hashed while it is copied: what goes out is what the manifest names. Weights do
not compress (quantised ones are as good as noise), so nothing is compressed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from hired_edge.bundle import Bundle
from hired_edge.engine_check import read_record
from hired_edge.engine_record import RECORD_NAME
from hired_edge.errors import BundleError, InputError
from hired_edge.filenames import signature_name
from hired_edge.hashing import CHUNK, CheckDocument, OnBytes, readable
from hired_edge.layout import engine_folders
from hired_edge.manifest import ENGINES_FOLDER, MANIFEST_NAME
from hired_runtime.trust import tar_format
from hired_runtime.trust.signatures import read_signature
from hired_runtime.whole import whole

MOST_FOLDERS = 64
"""Machines whose engines one tar may hold: their records are read together."""


@dataclass(frozen=True)
class Packed:
    """One file to be packed: its bytes, or where they are and what they must be."""

    name: str
    size: int
    content: bytes | None
    path: Path
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What a tar is to hold, in its order."""

    files: tuple[Packed, ...]
    engines: int
    """Folders of engines that are in the bundle."""
    signed: bool
    """Whether the manifest has a signature. Whose it is, nobody has looked at."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def contents(root: Path, *, engines: bool, check: CheckDocument | None = None) -> Contents:
    """What packing a bundle comes to. Names and sizes are checked; nothing is hashed yet.

    Args:
        root: the bundle's folder.
        engines: whether engines are packed along.
        check: of the bytes of the manifest, and of the records of engines that are packed.

    Raises:
        BundleError: the bundle is incomplete, holds what nothing names, or is refused by `check`.
    """
    documents: dict[Path, bytes] = {}

    def keep(path: Path, document: bytes) -> None:
        if check is not None:
            check(path, document)
        documents[path] = document

    bundle = Bundle.open(root, verify=False, check=keep)
    files = list(_document(root / MANIFEST_NAME, documents, root))
    signed = len(files) > 1
    for name, record in sorted(bundle.manifest.files.items()):
        files.append(Packed(name, record.bytes, None, root / name, record.sha256))
    folders = engine_folders(root)
    if engines and len(folders) > MOST_FOLDERS:
        _refuse(f"{root} has engines for {len(folders)} machines", f"at most {MOST_FOLDERS}", "remove some")
    for folder in folders if engines else ():
        record = read_record(folder, root, keep)
        files += _document(folder / RECORD_NAME, documents, root)
        for engine in sorted(record.engines, key=lambda engine: engine.file):
            name = f"{ENGINES_FOLDER}/{folder.name}/{engine.file}"
            files.append(Packed(name, engine.bytes, None, folder / engine.file, engine.sha256))
    if len(files) > tar_format.MOST_MEMBERS:
        _refuse(f"{root} has {len(files)} files", f"at most {tar_format.MOST_MEMBERS}", "pack it with another program")
    return Contents(tuple(files), len(folders), signed)


def pack(found: Contents, file: Path, on_bytes: OnBytes | None = None) -> None:
    """Writes the tar, whole or not at all.

    Args:
        found: in the bundle.
        file: to be made.
        on_bytes: progress; the total is `found.bytes`.

    Raises:
        InputError: the file is there.
        BundleError: a file of the bundle is not what the manifest or a record names, or the disk is full.
    """
    if os.path.lexists(file):
        raise InputError(f"{file} exists", expected="a file to be made", fix="remove it, or name another FILE")
    try:
        _check_room(found, file.parent)
        with whole(file) as partial, partial.open("wb") as tar:
            for each in found.files:
                _add(tar, each, on_bytes)
            tar.write(tar_format.end(tar.tell()))
    except OSError as error:
        _refuse(
            f"{error.filename or file} cannot be written ({error.strerror})",
            "room and the right to write there",
            "free some space, or name another FILE",
        )


def _document(path: Path, documents: dict[Path, bytes], root: Path) -> Iterator[Packed]:
    """The bytes that were checked, and their signature."""
    signature = read_signature(path)
    for place, content in ((path, documents[path]), (path.with_name(signature_name(path.name)), signature)):
        if content is not None:
            yield Packed(place.relative_to(root).as_posix(), len(content), content, place, "")


def _add(tar: BinaryIO, file: Packed, on_bytes: OnBytes | None) -> None:
    tar.write(tar_format.header(file.name, file.size))
    if file.content is not None:
        tar.write(file.content)
        if on_bytes is not None:
            on_bytes(file.size)
    else:
        _copy(tar, file, on_bytes)
    tar.write(tar_format.padding(file.size))


def _copy(tar: BinaryIO, file: Packed, on_bytes: OnBytes | None) -> None:
    digest, left = hashlib.sha256(), file.size
    with readable(file.path):
        source = file.path.open("rb", buffering=0)
    with source:
        while left:
            with readable(file.path):
                chunk = source.read(min(CHUNK, left))
            if not chunk:
                break
            digest.update(chunk)
            tar.write(chunk)
            left -= len(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    got = digest.hexdigest()
    if left or got != file.sha256:
        bundle = file.path.parents[file.name.count("/")]
        fix = f"see what is wrong: hired-edge verify {shlex.quote(str(bundle))}"
        _refuse(f"{file.path} was changed (sha256 {got[:12]}...)", f"sha256 {file.sha256[:12]}...", fix)


def _check_room(found: Contents, folder: Path) -> None:
    needed, free = found.bytes, shutil.disk_usage(folder).free
    if free < needed:
        _refuse(f"{free / 2**20:.0f} MiB free in {folder}", f"{needed / 2**20:.0f} MiB", "free some space")


def _refuse(got: str, expected: str, fix: str) -> NoReturn:
    raise BundleError(got, expected=expected, fix=fix)
