"""The workstation: turns a LLaVA-family checkpoint into a bundle (torch, transformers, onnx)."""
