"""How a weight matrix becomes small integers and scales: the scheme, rounding to nearest, and better scales."""

from __future__ import annotations

from hired_export.quantisation.blocks import dequantise, quantise, signed
from hired_export.quantisation.scheme import BLOCK_SIZES, METHODS, STORAGE_BLOCK, Method, Scheme

__all__ = ["BLOCK_SIZES", "METHODS", "STORAGE_BLOCK", "Method", "Scheme", "dequantise", "quantise", "signed"]
