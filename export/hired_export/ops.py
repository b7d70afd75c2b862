"""Building blocks of the export modules: parameters without memory, projections, ONNX operators emitted by name.

Everything here runs only while exporting under a FakeTensorMode. An operator emitted by name has a shape and a dtype
for the tracer but no eager meaning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def onnx_op(name: str, inputs: tuple[Tensor, ...], shape: Any, *, version: int, **attributes: Any) -> Tensor:
    """One node of the standard ONNX operator `name`, its output typed like the first input."""
    return torch.onnx.ops.symbolic(name, inputs, attributes, dtype=inputs[0].dtype, shape=shape, version=version)


def reshape(x: Tensor, *tail: int) -> Tensor:
    """(a, b, ...) -> (a, b, *tail). Zeros copy a dimension, so the graph holds a constant and no shape arithmetic."""
    target = torch.tensor([0, 0, *tail])
    return onnx_op("Reshape", (x, target), (x.shape[0], x.shape[1], *tail), version=21)


def parameter(*shape: int) -> nn.Parameter:
    """Of torch's default dtype, which is the graph's while one is traced (`graphs.activations`)."""
    return nn.Parameter(torch.empty(*shape), requires_grad=False)


class Projection(nn.Module):
    """x @ weight (+ bias), the weight stored (in, out)."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = parameter(inputs, outputs)
        self.bias = parameter(outputs) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


def rows(x: Tensor, start: int, stop: int) -> Tensor:
    """x[:, start:stop] as one Slice over constants (torch's own indexing comes out as a dozen nodes)."""
    bounds = (torch.tensor([start]), torch.tensor([stop]), torch.tensor([1]))
    return onnx_op("Slice", (x, *bounds), (x.shape[0], stop - start, *x.shape[2:]), version=13)
