"""The stored parts of packed matrices -> one tensor `LAYER.weight` each, whose parts were found and shape-checked.

Names are canonical already, so every layout of the other tensors will do.
"""

from __future__ import annotations

from collections import defaultdict

from hired_edge.errors import CheckpointError
from hired_export.packed.config import PackedConfig
from hired_export.packed.formats import FORMATS, Axis, Format, Part
from hired_export.packed.matrix import PackedMatrix
from hired_export.tensor import Tensor

SUFFIXES = frozenset(suffix for form in FORMATS for suffix in form.suffixes)


def is_part(name: str) -> bool:
    """Whether a stored tensor is a part of a packed matrix, by its name."""
    return name.rpartition(".")[2] in SUFFIXES


def gathered(stored: dict[str, Tensor], said: PackedConfig | None) -> dict[str, Tensor]:
    """`stored` with a tensor for each packed matrix in the place of its parts.

    Args:
        stored: by canonical names.
        said: what the checkpoint says of them.

    Raises:
        CheckpointError: nothing is said, or the parts are not those that it implies.
    """
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in stored.items():
        if is_part(name):
            layer, _, suffix = name.rpartition(".")
            layers[layer][suffix] = tensor
    if not layers:
        return stored
    if said is None:
        name = next(name for name in stored if is_part(name))
        raise CheckpointError(
            f"{name} is part of a quantised matrix and config.json has no quantization_config",
            expected="quantization_config, quantize_config.json or quant_config.json",
            fix="download the checkpoint's other files as well",
        )
    plain = {name: tensor for name, tensor in stored.items() if not is_part(name)}
    for layer, parts in layers.items():
        if f"{layer}.weight" in plain:
            raise _refused(f"{layer} has weight and {', '.join(parts)}", "one of them")
        plain[f"{layer}.weight"] = _tensor(layer, parts, said)
    return plain


def _tensor(layer: str, parts: dict[str, Tensor], said: PackedConfig) -> Tensor:
    form = said.form
    foreign = [suffix for suffix in parts if suffix not in form.suffixes]
    needed = (form.integers, form.scales, *((form.zeros,) if said.zeros else ()))
    missing = [part.suffix for part in needed if part.suffix not in parts]
    if foreign or missing:
        expected = ", ".join(part.suffix for part in needed)
        raise _refused(f"{layer} has {', '.join(parts)}", f"{expected}, by quant_method {form.name}")
    if not said.zeros:
        parts.pop(form.zeros.suffix, None)  # some versions write them all the same
    sizes = _sizes(layer, form, parts[form.scales.suffix], said.group)
    checked = {part.suffix: part for part in (*needed, *((form.groups,) if form.groups else ()))}
    for suffix, part in checked.items():
        if suffix in parts:
            _check(layer, parts[suffix], part, sizes, said.group)
    shape = (sizes["outputs"], sizes["inputs"])
    matrix = PackedMatrix(layer, form, parts, shape, group=said.group, one_less=said.one_less)
    return Tensor(shape, matrix.dequantised, bfloat16=False, packed=matrix)


def _sizes(layer: str, form: Format, scales: Tensor, group: int) -> dict[Axis, int]:
    axes = form.scales.axes
    if len(scales.shape) != len(axes) or 0 in scales.shape:
        raise _refused(f"{layer}.{form.scales.suffix} has shape {scales.shape}", " and ".join(axes))
    counted = dict(zip(axes, scales.shape, strict=True))
    return {**counted, "inputs": counted["groups"] * group}


def _check(layer: str, tensor: Tensor, part: Part, sizes: dict[Axis, int], group: int) -> None:
    expected = part.shape(sizes)
    if tensor.shape != expected:
        raise _refused(
            f"{layer}.{part.suffix} has shape {tensor.shape}",
            f"{expected}, by its scales and a group of {group}",
        )


def _refused(got: str, expected: str) -> CheckpointError:
    return CheckpointError(
        got, expected=expected, fix="use a config.json and weights that belong together, or another checkpoint"
    )
