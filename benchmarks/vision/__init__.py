"""The vision tower on a CPU beside PyTorch and a plain export: `python -m benchmarks.vision`."""
