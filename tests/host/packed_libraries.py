"""Makes tests/golden/packed-libraries.safetensors: matrices packed by AutoAWQ, AutoGPTQ and compressed-tensors.

The libraries are not for this project's environments: AutoAWQ and AutoGPTQ want a transformers of their time. So their
packing modules alone are imported, from unpacked packages, in an environment with torch and transformers:

    pip download --no-deps autoawq==0.2.9 auto-gptq==0.7.1
    tar xzf autoawq-0.2.9.tar.gz && unzip -d auto_gptq-0.7.1 auto_gptq-0.7.1-*.whl
    pip install --no-deps --target site compressed-tensors==0.20.0 loguru accelerate psutil
    PYTHONPATH=.:site python -m tests.host.packed_libraries autoawq-0.2.9 auto_gptq-0.7.1

A matrix `NAME` (32 outputs, 128 inputs, groups of 64) is `NAME/SUFFIX` for each of its parts, `NAME/weight` as the
library dequantises it (outputs, inputs) in float16, its own arithmetic.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

LIBRARIES = Path(__file__).parents[1] / "golden/packed-libraries.safetensors"
OUTPUTS, INPUTS, GROUP = 32, 128, 64
Tensors = dict[str, torch.Tensor]


def bare_packages(root: Path, *names: str) -> None:
    """Packages whose __init__ is not run: it would import all of the library."""
    for name in names:
        package = types.ModuleType(name)
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package


def linear(seed: int) -> nn.Linear:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(INPUTS, OUTPUTS, bias=False).half()
    layer.weight.data = (torch.randn(OUTPUTS, INPUTS, generator=generator) * 0.05).half()
    return layer


def steps(weight: torch.Tensor, *, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points (outputs, groups), as GPTQ's quantiser finds them."""
    grouped = weight.float().reshape(OUTPUTS, -1, GROUP)
    low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    scales = ((high - low) / 15).half().float()
    zeros = torch.full_like(scales, 8) if symmetric else (-low / scales).round().clamp(0, 15)
    return scales, zeros


def awq(*, symmetric: bool) -> Tensors:
    gemm = importlib.import_module("awq.modules.linear.gemm")
    layer = linear(1)
    scales, zeros = steps(layer.weight.data, symmetric=symmetric)
    # AutoAWQ packs weights that lie on the grid already.
    grouped = (layer.weight.data.float().reshape(OUTPUTS, -1, GROUP) / scales[..., None]).round()
    grid = (grouped + zeros[..., None]).clamp(0, 15) - zeros[..., None]
    layer.weight.data = (grid * scales[..., None]).reshape(OUTPUTS, INPUTS).half()
    packed = gemm.WQLinear_GEMM.from_linear(layer, 4, GROUP, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
    weight = gemm.dequantize_gemm(packed.qweight, packed.qzeros, packed.scales, 4, GROUP).T
    return {"qweight": packed.qweight, "qzeros": packed.qzeros, "scales": packed.scales, "weight": weight}


def gptq(*, symmetric: bool, act_order: bool = False) -> Tensors:
    quant = importlib.import_module("auto_gptq.nn_modules.qlinear.qlinear_cuda").QuantLinear
    layer = linear(2)
    groups = torch.arange(INPUTS) // GROUP
    if act_order:
        groups = groups[torch.randperm(INPUTS, generator=torch.Generator().manual_seed(4))]
    by_group = layer.weight.data[:, groups.argsort(stable=True)]
    scales, zeros = steps(by_group, symmetric=symmetric)
    packed = quant(4, GROUP, INPUTS, OUTPUTS, bias=False)
    packed.pack(layer.float(), scales, zeros, groups.int())
    packed.scales = packed.scales.half()
    weight = packed(torch.eye(INPUTS, dtype=torch.float16)).T
    parts = {name: getattr(packed, name) for name in ("qweight", "qzeros", "scales", "g_idx")}
    return {**parts, "weight": weight}


def compressed(*, symmetric: bool) -> Tensors:
    quantization = importlib.import_module("compressed_tensors.quantization")
    packer = importlib.import_module("compressed_tensors.compressors.pack_quantized.base")
    args = quantization.QuantizationArgs(num_bits=4, group_size=GROUP, strategy="group", symmetric=symmetric)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    layer = linear(3)
    scales, zeros = steps(layer.weight.data, symmetric=symmetric)
    state = {
        "weight": layer.weight.data,
        "weight_scale": scales.half(),
        "weight_zero_point": (zeros - 8).to(torch.int8),
    }
    parts = packer.PackedQuantizationCompressor.compress(state, scheme)
    weight = packer.PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
    return {**parts, "weight": weight}


def main(autoawq: str, autogptq: str) -> None:
    bare_packages(Path(autoawq), "awq", "awq.modules", "awq.modules.linear", "awq.utils")
    bare_packages(Path(autogptq), "auto_gptq", "auto_gptq.nn_modules", "auto_gptq.nn_modules.qlinear")
    made = {
        "awq-symmetric": awq(symmetric=True),
        "awq": awq(symmetric=False),
        "gptq-symmetric": gptq(symmetric=True),
        "gptq": gptq(symmetric=False),
        "gptq-act-order": gptq(symmetric=False, act_order=True),
        "compressed-tensors-symmetric": compressed(symmetric=True),
        "compressed-tensors": compressed(symmetric=False),
    }
    tensors = {f"{name}/{part}": value for name, parts in made.items() for part, value in parts.items()}
    tensors = {name: value.half() if name.endswith("/weight") else value for name, value in tensors.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, LIBRARIES)


if __name__ == "__main__":
    main(*sys.argv[1:])
