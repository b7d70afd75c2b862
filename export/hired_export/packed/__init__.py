"""Checkpoints whose matrices are in 4 bits already (AWQ, GPTQ, compressed-tensors), read as they are."""
