"""The bytes of the device's probe graph, which are written without onnx, against onnx itself."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from hired_runtime.board.onnx_graph import matmul


def test_onnx_reads_checks_and_runs_the_probe_graph() -> None:
    model = onnx.load_model_from_string(matmul())
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["a", "b"]
    a, b = np.ones((2, 3), np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    (y,) = ReferenceEvaluator(model).run(None, {"a": a, "b": b})
    np.testing.assert_array_equal(y, a @ b)


def test_the_bytes_are_as_onnx_would_write_them() -> None:
    assert onnx.load_model_from_string(matmul()).SerializeToString(deterministic=True) == matmul()
