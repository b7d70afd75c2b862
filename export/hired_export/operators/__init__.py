"""Which ONNX operators a TensorRT release takes, as data with its sources, and a check of a graph against it."""

from hired_export.operators.check import check_operators
from hired_export.operators.table import Table
from hired_export.operators.tensorrt_10_3 import TENSORRT_10_3
from hired_export.operators.tensorrt_10_16 import TENSORRT_10_16

__all__ = ["TENSORRT_10_3", "TENSORRT_10_16", "Table", "check_operators"]
