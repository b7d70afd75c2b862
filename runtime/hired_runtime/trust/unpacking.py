"""A tar as a bundle: only what its manifest and its engines' records name, with the hashes that they give.

All headers are read first, no content. Then the manifest, its signature, and the records of engines: they say what the
rest must be, and the tar must hold that, no more and no less. Only then is anything written, hashed on its way, into a
folder that becomes OUT at the end. Names come from the manifest, never from the tar, so no member can lie elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from hired_edge.bundle import MAX_MANIFEST_BYTES, Bundle, parse_bytes
from hired_edge.engine_check import MAX_RECORD_BYTES
from hired_edge.engine_record import RECORD_NAME, EngineFile, parse_record
from hired_edge.errors import BundleError
from hired_edge.filenames import check_file_name, signature_name
from hired_edge.hashing import CHUNK, OnBytes
from hired_edge.manifest import ENGINES_FOLDER, MANIFEST_NAME, FileRecord
from hired_edge.strict import show
from hired_runtime.trust.fresh_folder import fresh_folder
from hired_runtime.trust.keys import PublicKey
from hired_runtime.trust.packing import MOST_FOLDERS
from hired_runtime.trust.signatures import SIGNATURE_BYTES, Trusted
from hired_runtime.trust.tar_format import Member, read_members

_MEND = "get the file again, or pack the bundle again"


@dataclass(frozen=True)
class Unpacked:
    """What came out.

    Args:
        files: of the manifest.
        engines: folders of engines.
        signer: of the manifest; None = nobody was asked for.
    """

    files: int
    engines: int
    signer: PublicKey | None


@dataclass(frozen=True)
class Archive:
    """A tar whose documents were checked; open until the block ends."""

    path: Path
    handle: int
    documents: dict[str, bytes]
    """The manifest, records and signatures, by their names."""
    expected: dict[str, FileRecord]
    """Every other file."""
    members: dict[str, Member]
    result: Unpacked

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(member.size for member in self.members.values())


@contextmanager
def opened(path: Path, keys: Trusted | None) -> Iterator[Archive]:
    """Reads a tar's headers, manifest and records, and checks that it holds what they name. Nothing is written.

    Args:
        path: of the tar.
        keys: one of which must have signed the manifest, and each record of engines; None = not asked for.

    Raises:
        BundleError: not a tar, not a bundle, not signed, something missing or not named.
    """
    with _read_errors(path):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            _refuse(f"{path} is not a file", "a tar that hired-edge pack wrote", "pass its path")
        with _read_errors(path):
            archive = _checked(path, handle, keys)
        yield archive
    finally:
        os.close(handle)


def unpack(archive: Archive, out: Path, on_bytes: OnBytes | None = None) -> None:
    """Writes the bundle, whole or not at all.

    Args:
        archive: see `opened`.
        out: the folder to be made.
        on_bytes: progress; the total is `archive.bytes`.

    Raises:
        InputError: OUT is there, or is being made.
        BundleError: a content is not what was named, or the disk is full.
    """
    try:
        _check_room(archive.bytes, out.parent)
        with fresh_folder(out) as folder:
            for name, document in archive.documents.items():
                _place(folder, name).write_bytes(document)
                if on_bytes is not None:
                    on_bytes(len(document))
            for name, record in archive.expected.items():
                _copy(archive, archive.members[name], record, _place(folder, name), on_bytes)
            Bundle.open(folder, verify=False)
    except OSError as error:
        _refuse(
            f"{error.filename or out} cannot be written ({error.strerror})",
            "room and the right to write there",
            "free some space, or name another OUT",
        )


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _refuse(f"{path} cannot be read ({error.strerror})", "a tar that hired-edge pack wrote", "check the path")


def _checked(path: Path, handle: int, keys: Trusted | None) -> Archive:
    members, documents = read_members(handle, path), {}

    def take(name: str, most: int) -> bytes:
        """A document of the tar, and its signature if it has one, checked before anybody parses it."""
        member, beside = members[name], members.get(signature_name(name))
        if member.size > most:
            _refuse(f"{path} has a {name} of {member.size} bytes", f"at most {most}", _MEND)
        documents[name] = os.pread(handle, member.size, member.offset)
        if beside is not None:
            if beside.size != SIGNATURE_BYTES:
                _refuse(f"{path} has a {beside.name} of {beside.size} bytes", f"{SIGNATURE_BYTES}", _MEND)
            documents[beside.name] = os.pread(handle, beside.size, beside.offset)
        return documents[name]

    def signer(name: str) -> PublicKey | None:
        if keys is None:
            return None
        if signature_name(name) not in documents:
            _refuse(f"{path} has no {signature_name(name)}", f"the signature of {keys}", "sign it, and pack it again")
        return keys.signer_of(documents[name], documents[signature_name(name)], path / name)

    if MANIFEST_NAME not in members:
        _refuse(f"{path} has no {MANIFEST_NAME}", "a bundle in a tar, without a folder around it", _MEND)
    content = take(MANIFEST_NAME, MAX_MANIFEST_BYTES)
    by = signer(MANIFEST_NAME)
    expected = dict(parse_bytes(content, path / MANIFEST_NAME).files)
    files = len(expected)
    records = sorted(name for name in members if _is_record(name))
    if len(records) > MOST_FOLDERS:
        _refuse(f"{path} holds the engines of {len(records)} machines", f"at most {MOST_FOLDERS}", _MEND)
    for name in records:
        content = take(name, MAX_RECORD_BYTES)
        signer(name)
        for engine in _engines(content, path / name):
            expected[str(PurePosixPath(name).with_name(engine.file))] = FileRecord(engine.bytes, engine.sha256)
    _compare(path, members, documents, expected)
    return Archive(path, handle, documents, expected, members, Unpacked(files, len(records), by))


def _is_record(name: str) -> bool:
    """engines/FOLDER/engine.json"""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != ENGINES_FOLDER or parts[2] != RECORD_NAME:
        return False
    return bool(check_file_name(name))


def _engines(content: bytes, where: Path) -> tuple[EngineFile, ...]:
    try:
        return parse_record(content.decode(), str(where)).engines
    except UnicodeDecodeError:
        return _refuse(f"{where} is not text", "JSON in UTF-8", _MEND)


def _compare(
    path: Path, members: dict[str, Member], documents: dict[str, bytes], expected: dict[str, FileRecord]
) -> None:
    for name in members:
        if name not in documents and name not in expected:
            got = f"{path} holds {show(name)}, which neither its manifest nor an {RECORD_NAME} names"
            _refuse(got, "a bundle's own files", _MEND)
    for name, record in expected.items():
        if name not in members:
            _refuse(f"{path} has no {name}", f"{record.bytes} bytes, by its manifest", _MEND)
        if members[name].size != record.bytes:
            _refuse(f"{path} has a {name} of {members[name].size} bytes", f"{record.bytes}, by its manifest", _MEND)


def _place(folder: Path, name: str) -> Path:
    path = folder / check_file_name(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy(archive: Archive, member: Member, record: FileRecord, path: Path, on_bytes: OnBytes | None) -> None:
    digest, at, end = hashlib.sha256(), member.offset, member.offset + member.size
    with path.open("xb") as target:
        while at < end:
            chunk = os.pread(archive.handle, min(CHUNK, end - at), at)
            if not chunk:
                break
            digest.update(chunk)
            target.write(chunk)
            at += len(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    got = digest.hexdigest()
    if at < end or got != record.sha256:
        name = member.name
        _refuse(f"{name} in {archive.path} was changed (sha256 {got[:12]}...)", f"{record.sha256[:12]}...", _MEND)


def _check_room(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        _refuse(f"{free / 2**20:.0f} MiB free in {folder}", f"{needed / 2**20:.0f} MiB", "free some space")


def _refuse(got: str, expected: str, fix: str) -> NoReturn:
    raise BundleError(got, expected=expected, fix=fix)
