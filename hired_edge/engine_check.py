"""Engines held against their bundle and against this machine, BEFORE anything is deserialised.

`read_engines` finds the folder of this module, version and SM, and checks it: present, readable, no link, nothing that
leads out of it, the record's own rules, module, version, SM, the ONNX files' hashes and the golden check.
`checked_engine` then holds one that is to be loaded against the record, size and sha256, and hands out the very mapping
that was hashed; the others of a bundle with many budgets are not read. Every refusal ends with the command that
rebuilds. Nothing here deserialises or needs a GPU.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hired_edge.engine_record import RECORD_NAME, EngineFile, EngineRecord, folder_name, parse_record
from hired_edge.errors import BundleError
from hired_edge.hashing import CHUNK, CheckDocument, OnBytes
from hired_edge.manifest import ENGINES_FOLDER, FileRecord
from hired_edge.strict import show

MAX_RECORD_BYTES = 2**20


@dataclass(frozen=True)
class Machine:
    """What would deserialise: a TensorRT module, its whole version, and the SM of the GPU (87 for an Orin)."""

    module: str
    version: str
    sm: int

    @property
    def folder(self) -> str:
        return folder_name(self.sm, self.module, self.version)

    def __str__(self) -> str:
        return f"{self.module} {self.version} on SM {self.sm}"


def rebuild_command(bundle: Path, sm: int | None = None) -> str:
    """The exact command. `sm` only where it was built for another GPU than the one that is present."""
    return f"hired-edge build {shlex.quote(str(bundle))}{f' --sm {sm}' if sm else ''} --force"


def read_engines(
    bundle: Path, files: Mapping[str, FileRecord], machine: Machine, check: CheckDocument | None = None
) -> EngineRecord:
    """The record of this machine's engines, everything in it checked; no engine is read yet.

    Args:
        bundle: the bundle's folder.
        files: of its manifest, already verified.
        machine: what would run them.
        check: of the record's bytes.

    Raises:
        BundleError: there are none, or they are not to be deserialised here; with the command that rebuilds.
    """
    folder = machine_folder(bundle, machine)
    record = read_record(folder, bundle, check)
    check_record(record, files, machine, bundle)
    return record


def check_engine_files(
    bundle: Path, machine: Machine, engines: Iterable[EngineFile], on_bytes: OnBytes | None = None
) -> None:
    """What is to be loaded is what the build wrote.

    Args:
        bundle: the bundle's folder.
        machine: as for `read_engines`.
        engines: of its record.
        on_bytes: progress of the hashing.

    Raises:
        BundleError: a file is missing, a link, or was changed; with the command that rebuilds.
    """
    folder = machine_folder(bundle, machine)
    for engine in engines:
        with checked_engine(folder, engine, bundle, on_bytes):
            pass


@contextmanager
def checked_engine(
    folder: Path, engine: EngineFile, bundle: Path, on_bytes: OnBytes | None = None
) -> Iterator[memoryview]:
    """The content of an engine, mapped, after its sha256 was taken of this very mapping.

    A file that is replaced meanwhile does no harm. One that is written to in place is not noticed: whoever may do that
    while it is loaded is not held off.

    Args:
        folder: in which the engine and its record lie.
        engine: of the record.
        bundle: the bundle's folder, for messages.
        on_bytes: progress of the hashing.

    Raises:
        BundleError: the file is missing, a link, or was changed; with the command that rebuilds.
    """
    path = folder / engine.file
    with _mapped(path, engine.bytes, bundle) as content:
        digest = hashlib.sha256()
        for start in range(0, len(content), CHUNK):
            with content[start : start + CHUNK] as chunk:
                digest.update(chunk)
                if on_bytes is not None:
                    on_bytes(len(chunk))
        if (got := digest.hexdigest()) != engine.sha256:
            _refuse(f"{path} was changed (sha256 {got[:12]}...)", f"sha256 {engine.sha256[:12]}...", bundle)
        yield content


@contextmanager
def _mapped(path: Path, size: int, bundle: Path) -> Iterator[memoryview]:
    _check_regular(path, bundle)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            got = os.fstat(handle).st_size
            if got != size:
                _refuse(f"{path} has {got} bytes", f"{size}", bundle)
            content = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        _refuse(f"{path} cannot be read ({reason})", "a readable file", bundle)
    with content, memoryview(content) as view:
        yield view


def read_record(folder: Path, bundle: Path, check: CheckDocument | None = None) -> EngineRecord:
    """Reads `engine.json` of `folder`.

    Args:
        folder: of one machine's engines.
        bundle: the bundle's folder, for messages.
        check: of its bytes, before they are parsed.

    Raises:
        BundleError: it is missing, unreadable, a link, or not a record; or whatever `check` refuses.
    """
    path = folder / RECORD_NAME
    _check_regular(path, bundle)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        _refuse(f"{path} cannot be read ({error.strerror})", "a readable record", bundle)
    if len(data) > MAX_RECORD_BYTES:
        _refuse(f"{path} is larger than {MAX_RECORD_BYTES} bytes", "a record", bundle)
    if check is not None:
        check(path, data)
    try:
        return parse_record(data.decode("utf-8"), str(path))
    except UnicodeDecodeError:
        _refuse(f"{path} is not text", "JSON in UTF-8", bundle)
    except BundleError as error:
        _refuse(error.got, error.expected, bundle)


def check_record(record: EngineRecord, files: Mapping[str, FileRecord], machine: Machine, bundle: Path) -> None:
    """Everything that the record alone can tell: who built it, for what, from what, and whether it answered right.

    Raises:
        BundleError: any of it does not fit.
    """
    built = Machine(record.module, record.version, record.sm)
    if built != machine:
        _refuse(f"the engines of {bundle} were built by {built}", f"engines built by {machine}, which is here", bundle)
    for engine in record.engines:
        for name, digest in engine.sources.items():
            if name not in files:
                got = f"{engine.file} was built from {show(name)}, which {bundle} does not have"
                _refuse(got, "its own graphs", bundle)
            if files[name].sha256 != digest:
                _refuse(
                    f"{engine.file} was built from another {name} (sha256 {digest[:12]}...)",
                    f"sha256 {files[name].sha256[:12]}..., which is the bundle's",
                    bundle,
                )
    if record.check is not None and record.check.result == "failed":
        _refuse(
            f"the engines of {bundle} gave wrong answers after they were built ({ascii(record.check.reason)[:200]})",
            "the bundle's golden outputs",
            bundle,
        )


def machine_folder(bundle: Path, machine: Machine) -> Path:
    """Where this machine's engines lie.

    Raises:
        BundleError: there are none, or only behind a link.
    """
    engines = bundle / ENGINES_FOLDER
    folder = engines / machine.folder
    try:
        for part in (engines, folder):
            if part.is_symlink():
                _refuse(f"{part} is a link", "a folder of the bundle", bundle)
        if folder.is_dir():
            return folder
        built = sorted(show(path.name) for path in engines.iterdir() if path.is_dir()) if engines.is_dir() else []
    except OSError as error:
        _refuse(f"{folder} cannot be read ({error.strerror})", "a readable folder", bundle)
    got = f"{bundle} has engines for {', '.join(built) or 'no machine'}"
    return _refuse(got, f"{machine.folder}, for {machine}", bundle)


def _check_regular(path: Path, bundle: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        _refuse(f"{path} is missing", "what the build wrote", bundle)
    except OSError as error:
        _refuse(f"{path} cannot be read ({error.strerror})", "a readable file", bundle)
    if not stat.S_ISREG(mode):
        _refuse(f"{path} is {'a link' if stat.S_ISLNK(mode) else 'not a file'}", "a file that the build wrote", bundle)


def _refuse(got: str, expected: str, bundle: Path) -> NoReturn:
    raise BundleError(got, expected=expected, fix=f"run: {rebuild_command(bundle)}")
