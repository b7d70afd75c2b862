"""This runtime on a CPU beside llama.cpp and PyTorch: `python -m benchmarks.cpu`, written to docs/performance.md."""
