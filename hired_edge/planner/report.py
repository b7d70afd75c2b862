"""A plan as a table for people and as one JSON object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hired_edge.planner.plan import Plan, PrecisionPlan, Row

MIB = 2**20
COLUMNS = ("precision", "budget", "tokens", "M", "weights", "cache", "buffers", "work", "total", "margin", "fits")
SPEEDS = ("TTFT", "bound", "tok/s")

ASSUMPTIONS = (
    "weights and cache are exact; buffers too; what lives between operators is estimated from one layer's widths",
    "the process and the system are assumed as the device says, and a request is taken to use its limits up;"
    " a TensorRT engine is taken to keep weights as the bundle stores them and to be streamed while it loads",
    "TTFT and tok/s are rooflines: peak float16 tensor rate and peak bandwidth, each byte once; nothing can beat them,"
    " and preprocessing, norms and launch times are left out",
    "ONNX Runtime on a CPU is held to measured peaks (tests/host/test_planner_memory.py: 5 % for weights and cache,"
    " 15 % for the process), large bundles with --target cpu alone, as it widens float16; no board has been measured",
)


def table(plan: Plan) -> str:
    """What `hired-edge plan` prints. Bytes are in MiB."""
    device, request = plan.device, plan.request
    text, tower, tiling = plan.model.text, plan.model.tower, plan.model.tiling
    lines = [
        f"{plan.model.family}, {text.model_type}: {text.layers} layers of {text.hidden_size}, {text.heads} heads over"
        f" {text.kv_heads}, vocabulary {text.vocab_size}; tower: {tower.exported_layers} of {tower.layers} layers of"
        f" {tower.hidden_size}, up to {tiling.max_tiles} tiles of {tiling.patches_per_tile} visual tokens",
        f"{device.name} ({device.power_mode}): {device.memory_bytes // MIB} MiB, of which the system keeps"
        f" {device.system_bytes // MIB} and the process takes {device.process_bytes // MIB} (assumed);"
        f" {device.bandwidth_gb_s} GB/s, {device.fp16_tflops} TFLOPS float16, {device.int8_tops} TOPS int8",
        f"--target {plan.target}; {request.text_tokens} text and {request.new_tokens} new tokens,"
        f" batch {request.batch}, {request.images} picture(s) a row; MiB",
        "",
        *_aligned([(*COLUMNS, *SPEEDS), *(cells for each in plan.precisions for cells in _rows(plan, each))]),
        "",
        *(_largest(plan, each) for each in plan.precisions),
        *_warnings(plan),
        *(f"- {line}" for line in ASSUMPTIONS),
    ]
    return "\n".join(lines)


def _rows(plan: Plan, each: PrecisionPlan) -> Iterator[tuple[str, ...]]:
    for row in each.rows:
        taken = row.fit.footprint
        yield (
            each.precision,
            str(row.budget),
            str(row.limits.visual_tokens),
            str(row.limits.max_sequence_length),
            _mib(taken.vision_weights + taken.language_weights + taken.repacked),
            _mib(taken.kv_cache),
            _mib(taken.buffers),
            _mib(taken.vision_workspace + taken.language_workspace),
            _mib(taken.peak),
            _mib(row.fit.margin),
            "yes" if row.fit.fits else "NO",
            f"{row.roofline.ttft_s(plan.device):.2f} s",
            row.roofline.prefill.bound(plan.device),
            f"{row.roofline.tokens_per_s(plan.device):.1f}",
        )


def _largest(plan: Plan, each: PrecisionPlan) -> str:
    if each.largest is None:
        return f"{each.precision}: does not fit at any budget"
    stock = plan.request.images * plan.model.tiling.max_stock_tokens
    whole = " (all of the largest picture)" if each.largest == stock else ""
    return f"{each.precision}: the largest budget that fits is {each.largest} visual tokens{whole}"


def _warnings(plan: Plan) -> Iterator[str]:
    for each in plan.precisions:
        if each.head_needs_contiguous is not None:
            yield (
                f"{each.precision}: a build on JetPack 6 wants {_mib(each.head_needs_contiguous)} MiB of contiguous"
                f" memory for the LM head, and the default CMA is {_mib(plan.device.cma_bytes or 0)}: export with"
                " --lm-head-parts 4, or raise cma="
            )


def as_json(plan: Plan) -> dict[str, Any]:
    """The object of `--json`: bytes, seconds and numbers."""
    return {
        "family": plan.model.family,
        "device": {name: getattr(plan.device, name) for name in _DEVICE},
        "target": plan.target,
        "text_tokens": plan.request.text_tokens,
        "new_tokens": plan.request.new_tokens,
        "batch": plan.request.batch,
        "images": plan.request.images,
        "precisions": {
            each.precision: {
                "embedding_mapped_bytes": each.weights.embedding,
                "largest_visual_tokens": each.largest,
                "lm_head_contiguous_bytes": each.head_needs_contiguous,
                "budgets": {str(row.budget): _row(plan, row) for row in each.rows},
            }
            for each in plan.precisions
        },
        "assumptions": list(ASSUMPTIONS),
    }


_DEVICE = (
    "name",
    "power_mode",
    "memory_bytes",
    "system_bytes",
    "process_bytes",
    "bandwidth_gb_s",
    "fp16_tflops",
    "int8_tops",
    "sm",
    "source",
)
_BYTES = (
    "vision_weights",
    "language_weights",
    "repacked",
    "kv_cache",
    "buffers",
    "vision_workspace",
    "language_workspace",
    "loading",
    "peak",
)


def _row(plan: Plan, row: Row) -> dict[str, Any]:
    bounds, device = row.roofline, plan.device
    return {
        "visual_tokens": row.limits.visual_tokens,
        "max_sequence_length": row.limits.max_sequence_length,
        **{f"{name}_bytes": getattr(row.fit.footprint, name) for name in _BYTES},
        "available_bytes": row.fit.available,
        "margin_bytes": row.fit.margin,
        "fits": row.fit.fits,
        "roofline": {
            "vision_s": bounds.vision.seconds(device),
            "prefill_s": bounds.prefill.seconds(device),
            "prefill_bound": bounds.prefill.bound(device),
            "ttft_s": bounds.ttft_s(device),
            "tokens_per_s": bounds.tokens_per_s(device),
            "vision_flops": bounds.vision.flops,
            "prefill_flops": bounds.prefill.flops,
            "decode_bytes": bounds.decode.bytes,
        },
    }


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _mib(count: int) -> str:
    return f"{count / MIB:.0f}"
