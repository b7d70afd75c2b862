"""How AutoAWQ, AutoGPTQ / GPTQModel and compressed-tensors store a 4-bit matrix, as data.

Sources: AutoAWQ 0.2.9 awq/modules/linear/gemm.py and awq/utils/packing_utils.py; AutoGPTQ 0.7.1
auto_gptq/nn_modules/qlinear/; GPTQModel 7.7.0 gptqmodel/nn_modules/qlinear/__init__.py and gptqmodel/utils/model.py;
compressed-tensors 0.20.0 compressors/pack_quantized/. In all of them weight = (integer - zero point) * scale, a group
of neighbouring inputs shares zero point and scale, and integers are unsigned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hired_export.packed.nibbles import IN_ORDER, INTERLEAVED, PER_WORD, Order

Axis = Literal["outputs", "inputs", "groups"]


@dataclass(frozen=True)
class Part:
    """One stored tensor of a matrix.

    Args:
        suffix: of its name, behind the layer's.
        axes: what its axes count.
        packed: the axis along which eight neighbours share a word of 32 bits; None = plain numbers.
    """

    suffix: str
    axes: tuple[Axis, ...]
    packed: Axis | None = None

    def shape(self, sizes: dict[Axis, int]) -> tuple[int, ...]:
        """What a matrix of these sizes has. A partial word is padded."""
        return tuple(-(-sizes[axis] // PER_WORD) if axis == self.packed else sizes[axis] for axis in self.axes)


@dataclass(frozen=True)
class Format:
    """A way of storing a matrix of 4 bits.

    Args:
        name: `quant_method` in config.json.
        integers, scales: what every matrix has.
        zeros: zero points, without which they are 8.
        order: of the neighbours within a word.
        groups: the group of each input, where groups are not of neighbours (act-order).
        extra: other parts, which are not needed.
    """

    name: str
    integers: Part
    zeros: Part
    scales: Part
    order: Order = IN_ORDER
    groups: Part | None = None
    extra: tuple[str, ...] = ()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of every part."""
        groups = () if self.groups is None else (self.groups.suffix,)
        return (self.integers.suffix, self.zeros.suffix, self.scales.suffix, *groups, *self.extra)


AWQ = Format(
    name="awq",
    integers=Part("qweight", ("inputs", "outputs"), "outputs"),
    zeros=Part("qzeros", ("groups", "outputs"), "outputs"),
    scales=Part("scales", ("groups", "outputs")),
    order=INTERLEAVED,
)
GPTQ = Format(
    name="gptq",
    integers=Part("qweight", ("inputs", "outputs"), "inputs"),
    zeros=Part("qzeros", ("groups", "outputs"), "outputs"),
    scales=Part("scales", ("groups", "outputs")),
    groups=Part("g_idx", ("inputs",)),
)
COMPRESSED_TENSORS = Format(
    name="compressed-tensors",
    integers=Part("weight_packed", ("outputs", "inputs"), "inputs"),
    zeros=Part("weight_zero_point", ("outputs", "groups"), "outputs"),
    scales=Part("weight_scale", ("outputs", "groups")),
    groups=Part("weight_g_idx", ("inputs",)),
    extra=("weight_shape",),
)
FORMATS = (AWQ, GPTQ, COMPRESSED_TENSORS)
