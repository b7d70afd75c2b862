"""The committed bundles are what their script makes: byte for byte, but for what is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hired_edge.manifest import Manifest, parse_manifest
from hired_edge.tensorfile import TensorFile
from tests.golden.make import BUNDLES, HERE, make

MEASURED = "golden/"
MAX_BYTES = 3_000_000


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    make(folder)
    return folder


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


@pytest.mark.parametrize("name", BUNDLES)
def test_the_script_makes_the_committed_bytes(name: str, remade: Path) -> None:
    committed, fresh = files(HERE / name), files(remade / name)
    assert list(committed) == list(fresh)
    for file in committed:
        if not file.startswith(MEASURED) and file != "manifest.json":
            assert committed[file].read_bytes() == fresh[file].read_bytes(), file
    assert unmeasured(HERE / name) == unmeasured(remade / name)


@pytest.mark.parametrize("name", BUNDLES)
def test_measured_outputs_agree(name: str, remade: Path) -> None:
    """float32: to summation order. int4: activations are rounded to int8, where a last bit may tip over."""
    tolerance = 1e-4 if BUNDLES[name] == "fp32" else 0.25
    for file in files(HERE / name / "golden"):
        committed, fresh = TensorFile(HERE / name / "golden" / file), TensorFile(remade / name / "golden" / file)
        for tensor in committed.names:
            expected = committed.read(tensor)
            np.testing.assert_allclose(fresh.read(tensor), expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", BUNDLES)
def test_the_committed_bundle_is_small(name: str) -> None:
    assert sum(path.stat().st_size for path in files(HERE / name).values()) < MAX_BYTES
