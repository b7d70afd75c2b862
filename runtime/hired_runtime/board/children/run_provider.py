"""Runs an ONNX graph (first argument, in hexadecimal) on one provider of ONNX Runtime (second) and checks its numbers.

The graph computes y = a @ b of two matrices. Falling back to the CPU counts as a failure.
"""

from __future__ import annotations

import json
import sys


def main(graph: bytes, provider: str) -> dict:
    try:
        import numpy as np
        import onnxruntime as ort
    except Exception as error:  # a broken installation can raise anything
        return {"compiled": False, "ran": False, "detail": f"{type(error).__name__}: {error}"}
    if provider not in ort.get_available_providers():
        return {"compiled": False, "ran": False, "detail": f"not in onnxruntime {ort.__version__}"}
    try:
        options = ort.SessionOptions()
        if provider != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = ort.InferenceSession(graph, options, providers=[provider])
        session.disable_fallback()
        if session.get_providers()[0] != provider:
            return {
                "compiled": True,
                "ran": False,
                "detail": "it could not be loaded; ONNX Runtime fell back to the CPU",
            }
        a = np.arange(6, dtype=np.float32).reshape(2, 3)
        b = np.arange(6, dtype=np.float32).reshape(3, 2) - 2
        y = np.asarray(session.run(["y"], {"a": a, "b": b})[0])
        right = np.array_equal(y, a @ b)  # small whole numbers: exact in every precision that a provider may use
        detail = f"onnxruntime {ort.__version__}" if right else f"wrong numbers: {y.tolist()}, not {(a @ b).tolist()}"
        return {"compiled": True, "ran": bool(right), "detail": detail}
    except Exception as error:  # ONNX Runtime's classes are generated and share no public base
        return {"compiled": True, "ran": False, "detail": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    print(json.dumps(main(bytes.fromhex(sys.argv[1]), sys.argv[2])))
