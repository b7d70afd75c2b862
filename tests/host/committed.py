"""Compares a committed bundle with one that its script has just made: byte for byte, but for what is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from hired_edge.manifest import Manifest, parse_manifest
from hired_edge.tensorfile import TensorFile

MEASURED = "golden/"


def files(root: Path) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def unmeasured(root: Path) -> Manifest:
    """The manifest without parity figures and without the records of golden files."""
    manifest = parse_manifest((root / "manifest.json").read_text())
    kept = {name: record for name, record in manifest.files.items() if not name.startswith(MEASURED)}
    figures = tuple(
        dataclasses.replace(check, max_abs_error=0.0, max_abs_reference=0.0, tolerance=1.0) for check in manifest.parity
    )
    errors = {name: round(error, 6) for name, error in manifest.quantisation_errors.items()}
    return dataclasses.replace(manifest, files=kept, parity=figures, quantisation_errors=errors, digest="")


def check_same_bytes(committed: Path, fresh: Path) -> None:
    assert list(files(committed)) == list(files(fresh))
    for file, path in files(committed).items():
        if not file.startswith(MEASURED) and file != "manifest.json":
            assert path.read_bytes() == files(fresh)[file].read_bytes(), file
    assert unmeasured(committed) == unmeasured(fresh)


def check_measured(committed: Path, fresh: Path, tolerance: float) -> None:
    """Golden outputs within `tolerance` of the largest value."""
    assert files(committed / "golden")
    for file in files(committed / "golden"):
        ours, theirs = TensorFile(committed / "golden" / file), TensorFile(fresh / "golden" / file)
        for tensor in ours.names:
            expected = ours.read(tensor)
            np.testing.assert_allclose(theirs.read(tensor), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def size(root: Path) -> int:
    return sum(path.stat().st_size for path in files(root).values())
