"""Which ONNX Runtime is installed, asked of a fake installation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from typing import Any

import pytest

from hired_edge.engines import check_onnxruntime
from hired_edge.errors import HiredEdgeError, MissingExtraError


class FakeDistribution(Distribution):
    def __init__(self, name: str) -> None:
        self.fake_name = name

    def read_text(self, filename: str) -> str | None:
        return f"Metadata-Version: 2.1\nName: {self.fake_name}\nVersion: 1.31.1\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise AssertionError("a fake distribution has no files")


class FakeFinder(DistributionFinder):
    """Stands for an environment that has only `distributions`; other modules are found as usual."""

    def __init__(self, *distributions: str) -> None:
        self.distributions = distributions
        self.real = list(sys.meta_path)

    def find_distributions(
        self,
        context: DistributionFinder.Context = DistributionFinder.Context(),  # noqa: B008 (the base's own default)
    ) -> Iterator[Distribution]:
        return (FakeDistribution(name) for name in self.distributions if context.name in (None, name))

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname == "onnxruntime":
            return ModuleSpec(fullname, loader=None) if self.distributions else None
        return next((spec for finder in self.real if (spec := finder.find_spec(fullname, path, target))), None)


def install(monkeypatch: pytest.MonkeyPatch, *distributions: str) -> None:
    monkeypatch.setattr(sys, "meta_path", [FakeFinder(*distributions)])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)


@pytest.mark.parametrize("distribution", ["onnxruntime", "onnxruntime-gpu", "onnxruntime-of-a-board"])
def test_one_distribution_is_right(distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, distribution)
    check_onnxruntime()


def test_two_distributions_are_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(HiredEdgeError) as caught:
        check_onnxruntime()
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1" in caught.value.got
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in caught.value.fix


def test_none_is_refused_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(MissingExtraError) as caught:
        check_onnxruntime()
    assert "pip install 'hired-edge[cpu]'" in caught.value.fix
