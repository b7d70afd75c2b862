"""The committed bundles are what their script makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.make import BUNDLES, HERE, make
from tests.host.committed import check_measured, check_same_bytes, size

MAX_BYTES = 3_000_000


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    make(folder)
    return folder


@pytest.mark.parametrize("name", BUNDLES)
def test_the_script_makes_the_committed_bytes(name: str, remade: Path) -> None:
    check_same_bytes(HERE / name, remade / name)


@pytest.mark.parametrize("name", BUNDLES)
def test_measured_outputs_agree(name: str, remade: Path) -> None:
    """float32: to summation order. int4: activations are rounded to int8, where a last bit may tip over."""
    check_measured(HERE / name, remade / name, tolerance=0.25 if BUNDLES[name] else 1e-4)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_committed_bundle_is_small(name: str) -> None:
    assert size(HERE / name) < MAX_BYTES
