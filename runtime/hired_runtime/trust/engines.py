"""All engines in a bundle, whatever machine they are for, held against their records. Nothing is deserialised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hired_edge.bundle import Bundle
from hired_edge.engine_check import Machine, check_engine_files, check_record, read_record
from hired_edge.engine_record import RECORD_NAME, EngineRecord
from hired_edge.hashing import CheckDocument, OnBytes
from hired_edge.layout import engine_folders


@dataclass(frozen=True)
class Engines:
    """One machine's.

    Args:
        folder: in `engines/`.
        record: that lies there.
    """

    folder: Path
    record: EngineRecord

    @property
    def path(self) -> Path:
        """Of the record."""
        return self.folder / RECORD_NAME

    @property
    def machine(self) -> Machine:
        """That they are for."""
        return Machine(self.record.module, self.record.version, self.record.sm)

    @property
    def bytes(self) -> int:
        """Of the engines."""
        return sum(engine.bytes for engine in self.record.engines)


def in_bundle(bundle: Bundle, check: CheckDocument | None = None) -> list[Engines]:
    """Every folder's, by name.

    Args:
        bundle: an opened bundle.
        check: of the records' bytes; None = the bundle's own.

    Raises:
        BundleError: a record cannot be read, or is refused by the check.
    """
    check = check or bundle.check
    return [Engines(folder, read_record(folder, bundle.root, check)) for folder in engine_folders(bundle.root)]


def check(engines: Engines, bundle: Bundle, on_bytes: OnBytes | None = None) -> None:
    """They were built from this bundle's graphs, passed their golden check where there was one, and are unchanged.

    Args:
        engines: of the bundle.
        bundle: its files are verified.
        on_bytes: progress of the hashing.

    Raises:
        BundleError: any of it is not so, with the command that rebuilds.
    """
    check_record(engines.record, bundle.manifest.files, engines.machine, bundle.root)
    check_files(engines, bundle, on_bytes)


def check_files(engines: Engines, bundle: Bundle, on_bytes: OnBytes | None = None) -> None:
    """They lie in the folder of their machine, and have the sha256 of their record.

    Raises:
        BundleError: one of them does not or has not, with the command that rebuilds.
    """
    check_engine_files(bundle.root, engines.machine, engines.record.engines, on_bytes)
