"""docs/gpu.md: a comparison's results as a page, or that there are none yet. It measures nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.results import Agreement, Results, Row, Where
from benchmarks.shapes import BATCHES, BUDGETS
from hired_edge.manifest import Precision

TITLE = "# On an NVIDIA GPU"
SIDES = {
    "stock": "transformers, all visual tokens",
    "research": "HiRED in PyTorch",
    "ours": "hired-edge",
}
GIB = 2**30


COLUMNS = (
    "budget",
    "batch",
    "",
    "weights",
    "visual tokens",
    "TTFT, ms",
    "preparation, ms",
    "of the ceiling",
    "tokens/s",
    "of the ceiling",
    "memory, GiB",
)
AGREEMENT = (
    "weights",
    "budget",
    "against",
    "visual tokens kept by both",
    "attention maps differ by",
    "same tokens",
    "where they part",
)


def without_gpu() -> str:
    """What stands there until a comparison was run."""
    budgets, batches = _and(BUDGETS), _and([str(batch) for batch in BATCHES])
    return f"""{TITLE}

Nothing has been measured: no NVIDIA GPU was available when this page was last written. On a machine that has one,
with its driver, this command measures and writes the page anew:

    make gpu-check

It runs the tests marked `gpu`, `hired-edge doctor` and then the comparison (`python -m benchmarks.gpu`): a
LLaVA-NeXT-7B shape with random weights, in fp16 and int4, by this runtime (TensorRT, or ONNX Runtime on CUDA), beside
transformers in PyTorch fp16 with SDPA, and beside HiRED as its authors run it in PyTorch. At {budgets} of the
visual tokens and batches of {batches}: time to first token, tokens/s, peak memory, and how near they come to
what the GPU's measured arithmetic and bandwidth allow. It takes 35 GB of disk, 90 with TensorRT's engines.

What is proved without a GPU is that the sides compute the same: tests/host/test_benchmarks.py runs all of it on the
CPU, with a tiny model.

Written by `python -m benchmarks.gpu --without-gpu`, not by hand.
"""


def text(results: Results) -> str:
    """The page of a comparison."""
    setup, where, ceilings = results.setup, results.where, results.ceilings
    width, height = setup.picture
    lines = [
        TITLE if where.accelerator else "# Tried out on a CPU",
        "",
        f"{_on(where)}. {results.written}, by",
        "",
        f"    {command(results)}",
        "",
        f"A {setup.shape} shape with random weights (seed {setup.seed}): times are real, words are noise.",
        f'A picture of {width} x {height} px, the question "{setup.prompt}", {setup.new_tokens} new tokens. Medians of',
        f"{setup.iterations} after {setup.warmup} to warm up; every row of the table is a process of its own.",
        "",
        "- TTFT: from the picture's file to the first token. Preparation is part of it, by the same code on each side.",
        "- tokens/s: of all rows together, after their first tokens.",
        f"- Memory: the peak {'on the GPU' if setup.device == 'cuda' else 'of the process'}, above what was in use"
        " before the model was loaded.",
        f"- Ceilings: a product of two {ceilings.dtype} matrices of {ceilings.matmul} reached"
        f" {ceilings.flops_per_s / 1e12:.4g} TFLOP/s, a copy of {ceilings.copy_bytes / GIB:.3g} GiB"
        f" {ceilings.bytes_per_s / 1e9:.4g} GB/s",
        "  (read and written). *Of the ceiling*: the least TTFT that these allow, by what was measured; the tokens/s",
        "  that were measured, by the most that these allow (hired_edge/planner/roofline.py).",
        f"- {SIDES['stock']}: `generate` with SDPA and its default cache.",
        f"- {SIDES['research']}: hooks on the tower, whole attention maps of two layers, kept rows into `generate`.",
        f"  Both run in {ceilings.dtype}; for hired-edge, the weights are the language model's as they are stored.",
        *(f"- {note}." for note in results.notes),
        "",
        *_table(COLUMNS, [_row(row) for row in results.rows]),
        "",
        "## Do they compute the same?",
        "",
        "One row of each side, from the same weights. Two programs round differently: a patch at the edge of what is",
        "kept may change places with another, and so may two logits that nearly tie. int4 also rounds the weights.",
        "",
        *_agreement(results),
        "",
        "## Versions",
        "",
        *_versions(results),
        "",
        "Every iteration is in gpu-figures.json beside this page. Written by `python -m benchmarks.gpu`, not by hand.",
        "",
    ]
    return "\n".join(lines)


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def line(row: Row) -> str:
    """What is printed when a cell is done."""
    if row.figures is None:
        return f"{row.cell.name}: {row.trouble}"
    found = row.figures
    return (
        f"{row.cell.name}: TTFT {found.ttft_ms.median:.1f} ms, {found.tokens_per_s.median:.1f} tokens/s, "
        f"{found.peak_bytes / GIB:.2f} GiB ({found.engine})"
    )


def command(results: Results) -> str:
    """What measures the same again."""
    setup = results.setup
    cells = [row.cell for row in results.rows]
    words = {
        "shape": setup.shape,
        "device": setup.device,
        "budgets": _each(cell.budget for cell in cells),
        "batches": _each(str(cell.batch) for cell in cells),
        "precisions": _each(cell.precision for cell in cells if cell.side == "ours"),
        "new-tokens": setup.new_tokens,
        "warmup": setup.warmup,
        "iterations": setup.iterations,
    }
    return "python -m benchmarks.gpu " + " ".join(f"--{name} {value}" for name, value in words.items())


def _each(values: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(values))


def _on(where: Where) -> str:
    if where.accelerator is None:
        return where.processor
    return f"{where.accelerator}, driver {where.driver or 'unknown'}; {where.processor}"


def _row(row: Row) -> list[str]:
    cell = row.cell
    named = [cell.budget.replace("%", " %"), str(cell.batch), SIDES[cell.side], cell.precision]
    if row.figures is None or row.least is None:
        return [*named, "", str(row.trouble), *[""] * 5]
    found, least = row.figures, row.least
    return [
        *named,
        str(found.visual_tokens),
        f"{found.ttft_ms.median:.1f}",
        f"{found.preparation_ms.median:.1f}",
        f"{100 * least.ttft_ms / found.ttft_ms.median:.1f} %",
        f"{found.tokens_per_s.median:.1f}",
        f"{100 * found.tokens_per_s.median / least.tokens_per_s:.1f} %",
        f"{found.peak_bytes / GIB:.2f}",
    ]


def _agreement(results: Results) -> list[str]:
    lines = _table(AGREEMENT, [_agreement_row(each) for each in results.agreements])
    if results.disagreement is not None:
        lines += ["", f"The answers could not be compared further: {results.disagreement}."]
    return lines


def _agreement_row(found: Agreement) -> list[str]:
    return [
        found.precision,
        found.budget.replace("%", " %"),
        SIDES[found.against],
        f"{found.same_visual_tokens} of {found.visual_tokens}",
        "" if found.maps_error is None else f"{100 * found.maps_error:.2g} % of the largest",
        f"the first {found.same_tokens} of {found.tokens}",
        "nowhere" if found.gap is None else f"at a gap of {100 * found.gap:.2g} % of the largest logit",
    ]


def _versions(results: Results) -> list[str]:
    where = results.where
    engines: dict[tuple[str, Precision], str] = {}
    for row in results.rows:
        if row.figures is not None:
            engines[SIDES[row.cell.side], row.cell.precision] = row.figures.engine
    return [
        f"- hired-edge {where.hired_edge}, Python {where.python}, torch {where.torch} (CUDA {where.cuda or 'none'}), "
        f"transformers {where.transformers}",
        *(f"- {side}, {precision}: {engine}" for (side, precision), engine in engines.items()),
    ]


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (heading, ["---"] * len(heading), *rows)]
