"""Lowerings of the one standard graph, a pass a file; each rewrites an `onnx_ir.Model` in place."""
