"""Fixtures of the proof: bundles exported once a session, and the figures that a test measured."""

from __future__ import annotations

import os
from collections.abc import Callable

# Before torch is imported: tests fork, and OpenMP's threads do not live on in a forked process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.host.bundles import Bundles
from tests.host.original_layouts import Originals
from tests.host.reference import Measure, Reference


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """A factory; the folder is common to the workers of pytest-xdist, each of which has a base of its own."""
    base = tmp_path_factory.getbasetemp()
    return Bundles((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-bundles")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    """Checkpoints in original layouts, by name."""
    return Originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="session")
def references(bundles: Bundles) -> Callable[[str], Reference]:
    """transformers' model of a recipe's checkpoint, loaded once a worker."""
    loaded: dict[str, Reference] = {}

    def reference(name: str) -> Reference:
        if name not in loaded:
            loaded[name] = Reference(bundles.checkpoint(name))
        return loaded[name]

    return reference


@pytest.fixture
def measure(record_property: Callable[[str, object], None]) -> Measure:
    """The largest absolute error; it and its size against the largest value are recorded under a name, and printed."""

    def measured(name: str, got: NDArray, expected: NDArray) -> float:
        assert got.shape == expected.shape
        error, largest = float(np.abs(got - expected).max()), float(np.abs(expected).max())
        record_property(name, f"{error:.2e} absolute, {error / largest:.2e} of the largest value {largest:.3g}")
        print(f"{name}: {error:.2e} of {largest:.3g}")
        return error

    return measured


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The two tests that repeat tests/device start first, one on each worker: last, they would keep one waiting."""
    whole_suites = [item for item in items if item.name.startswith("test_the_device_tests_pass_on_the_")]
    others = [item for item in items if item not in whole_suites]
    middle = len(others) // 2  # where the second worker begins
    items[:] = [*whole_suites[:1], *others[:middle], *whole_suites[1:], *others[middle:]]
