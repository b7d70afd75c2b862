"""Tars as a stranger may have written them, for the tests of pack and unpack."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from hired_runtime.trust import packing
from tests.tiny.commands import Capture, refused

Files = list[tuple[str, bytes]]


def listed(bundle: Path) -> Files:
    """What a tar of it holds."""
    found = packing.contents(bundle, engines=True)
    return [(each.name, each.path.read_bytes()) for each in found.files]


def write(path: Path, files: Iterable[tuple[str, bytes]], extra: Iterable[tarfile.TarInfo] = ()) -> Path:
    """A tar by Python's tarfile."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_refused(capsys: Capture, folder: Path, *argv: object) -> str:
    """Nothing is left of it, and nothing was written anywhere near."""
    before = sorted(path.name for path in folder.iterdir())
    line = refused(capsys, "unpack", *argv)
    assert sorted(path.name for path in folder.iterdir()) == before
    return line
