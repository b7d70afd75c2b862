"""The vision graph of a bundle held against transformers: as it is shipped, and with its activations left in float32.

Where its products take int8 weights, the second run leaves out nothing but the rounding of activations to bytes, and
the reference has the same rounded weights, so a wrong weight or scale stands out. The first run then shows a broken
kernel and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from hired_export.lowering.vision_int8 import PRODUCT
from hired_export.shipped import edited_session, session

ROUNDED_TOLERANCE = 0.25
"""Of the largest reference value, where activations are rounded to bytes (see `parity.ROUNDED_TOLERANCE`)."""


def outputs(path: Path, pixels: NDArray, *, as_shipped: bool = True) -> dict[str, NDArray]:
    """What the graph gives for `pixels` (T, 3, h, w), by name.

    `as_shipped`: False leaves the activations of quantised products in float32.
    """
    if as_shipped:
        runner = session(path)
    else:
        model = onnx.load(path, load_external_data=False)
        nodes = list(_in_float(model.graph))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        runner = edited_session(path, model)
    names = [output.name for output in runner.get_outputs()]
    return dict(zip(names, map(np.asarray, runner.run(names, {"pixel_values": pixels})), strict=True))


def _in_float(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes, with a product of floats for every product of bytes; its weights are those integers times scales."""
    rounded = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.node:
        if node.op_type == PRODUCT:
            weight, scales = node.input[1], node.input[3]
            yield onnx.helper.make_node("DequantizeLinear", [weight, scales], [f"{weight}.float"], axis=1)
            yield onnx.helper.make_node("MatMul", [rounded[node.input[0]], f"{weight}.float"], node.output)
        else:
            yield node
