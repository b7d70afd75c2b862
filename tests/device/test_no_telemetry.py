"""Nothing here tells anybody that it is used, libraries included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).parents[1] / "golden/bundle/vision/model.onnx"
LOAD = f"""
import hired_runtime
import onnxruntime
onnxruntime.InferenceSession({str(MODEL)!r})
"""


def test_onnx_runtime_keeps_no_number_of_this_machine(tmp_path: Path) -> None:
    """Where it sends usage data, it keeps one in the user's cache first."""
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", LOAD], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
