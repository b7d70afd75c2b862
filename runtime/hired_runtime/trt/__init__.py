"""TensorRT: from a bundle's ONNX files to engines. Nothing of it is imported before it is asked for."""
