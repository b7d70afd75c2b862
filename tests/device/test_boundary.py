"""A device has no torch, transformers or onnx: every device module imports in a process that refuses them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny.processes import PATIENCE_S

FORBIDDEN = ("torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors")

# Refusals are recorded as well as raised, so that an import inside `try: ... except ImportError` is found too.
IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

forbidden, packages = sys.argv[1].split(","), sys.argv[2].split(",")
refused = []

class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            refused.append(name)
            raise ModuleNotFoundError(f"a device has no {name}", name=name)

sys.meta_path.insert(0, Refuse)
for package in packages:
    print(package)
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
        print(module.name)
sys.exit(f"imported on a device: {refused}" if refused else 0)
"""


def import_everything(*packages: str, path: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, ",".join(FORBIDDEN), ",".join(packages)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_every_device_module_imports_without_the_workstations_packages() -> None:
    result = import_everything("hired_edge", "hired_runtime", "demo.scenes")
    assert result.returncode == 0, result.stderr
    assert {"hired_edge.cli", "hired_edge.errors", "hired_runtime", "demo.scenes.draw"} <= set(result.stdout.split())


@pytest.mark.parametrize("package", FORBIDDEN)
@pytest.mark.parametrize("source", ["import {0}", "try:\n    import {0}.nn\nexcept ImportError:\n    pass"])
def test_the_check_finds_a_forbidden_import(package: str, source: str, tmp_path: Path) -> None:
    (tmp_path / "fake_wing").mkdir()
    (tmp_path / "fake_wing" / "__init__.py").touch()
    (tmp_path / "fake_wing" / "module.py").write_text(source.format(package))
    result = import_everything("fake_wing", path=(str(tmp_path),))
    assert result.returncode == 1
    assert package in result.stderr.splitlines()[-1]
