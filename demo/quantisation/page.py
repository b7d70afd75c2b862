"""The figures -> docs/quantisation.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.vision.results import Agreement
from demo.quantisation.divergence import BUDGETS, Divergence
from demo.quantisation.wide import NORM, RUNS, WIDTH, Row
from demo.scenes.questions import TASKS
from hired_runtime.evaluation import Estimate

HEAD = """# What quantising costs

Written by `python -m demo.quantisation`, which measures everything below; do not edit it by hand.

| `--quantisation` | scales of int4 blocks |
| --- | --- |
| `rtn` | round to nearest: a block's largest weight is 7 steps |
| `hqq` (default) | the smallest squared error of ten candidates a block, each improved by least squares; no data |
| `awq` | the same, an error counted by its input's mean square, after scaling the inputs; `--calibration FOLDER` |

All blocks are symmetric (TensorRT takes no others), scales are numbers of fp16, the LM head is int8 per channel. HQQ's
own choice, a zero point under a norm with p < 1, has no place here: where the scale alone is chosen, such a norm gives
up a block's largest weights, as the last table shows; so the squared error is minimised. awq's factors are folded into
the layers in front, which is exact before rounding; the export's parity check compares with the model scaled alike.

`--embedding int8` stores the token embeddings as int8 rows with a float32 scale each. `--vision-precision int8`, for
the CPU, multiplies in the vision tower and the projector with int8 weights, and with tokens rounded to 8 bits, each by
a scale of its own; attention maps and norms stay in float32.
"""

LIMITS = """## What this does not show

The demonstration model has {parameters} parameters, five layers of width 128, and knows drawn cards; its answers are
short and sure. A 7B model may lose more or less than this one. What awq is for, channels of the activations that
stand out in large models, a model of this size need not have. Differences within the intervals are none. The single
matrix below has a 7B model's width, but drawn weights and inputs: it says how fast a method is and that it does what it
should, not how well a model answers.
"""


BEGIN = "<!-- written by --only matrix: it wants a machine without other work -->"


@dataclass(frozen=True)
class Measured:
    """One bundle: its size on disk without the vision tower, accuracies by (budget, task), how far it is from fp32."""

    name: str
    megabytes: float
    accuracy: dict[tuple[str, str], Estimate]
    same: dict[str, float]
    divergence: dict[str, Divergence]


@dataclass(frozen=True)
class Run:
    """What was measured, on what."""

    machine: str
    questions: int
    pictures: int
    forced: int
    calibration: str
    parameters: str
    seconds: float


def render(run: Run, measured: Sequence[Measured], tower: Agreement) -> str:
    """The page, without its last section; `tower` is how near the int8 tower comes to the other."""
    parts = [
        HEAD,
        _sentence(run),
        "## How far from fp32",
        f"Kullback-Leibler divergence of the next token's distribution from fp32's, in nats, on {run.forced} held-out "
        "questions; fp32's answers are given token by token. Mean with its 95 % interval over pictures (a few tokens "
        "that were nearly tied dominate it), and median. `first`: questions with fp32's first token. `answers`: whole "
        f"answers equal to fp32's, of {run.questions}. Bundles run as shipped: the CPU's int8 and int4 kernels round "
        "activations to int8 too.",
        _divergence_table(measured),
        "## Accuracy",
        f"Exact match in % on {run.questions} questions about {run.pictures} pictures, with 95 % intervals over them.",
        *(_accuracy_table(measured, budget) for budget in BUDGETS),
        _tower(run, tower),
        LIMITS.format(parameters=run.parameters),
        BEGIN,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def with_matrix(text: str, machine: str, rows: Sequence[Row]) -> str:
    """The page with its last section, in the place of what it was."""
    parts = [
        text.partition(BEGIN)[0] + BEGIN,
        f"## One matrix of {WIDTH} x {WIDTH}",
        "Relative root-mean-square error of the weights and of the outputs; megabytes of fp16 weights quantised a "
        f"second by all threads, median of {RUNS}. awq's speed leaves out its calibration. `p = {NORM}`: hqq's "
        f"candidates under that norm. On {machine}.",
        _matrix_table(rows),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _sentence(run: Run) -> str:
    return (
        f"On {run.machine}; {run.seconds / 60:.0f} minutes. awq was calibrated with {run.calibration}, of seeds that "
        "training saw."
    )


def _tower(run: Run, tower: Agreement) -> str:
    kept = ", ".join(f"{100 * share:.1f} % at {budget.replace('%', ' %')}" for budget, share in tower.kept.items())
    return (
        f"## The int8 tower\n\nOf the tokens that `hired` keeps of {run.pictures} pictures, the int8 tower keeps the "
        f"same: {kept}. Cosine of a patch's features with float32's: {tower.cosine:.5f} in the mean, "
        f"{tower.least_cosine:.5f} at least."
    )


def _divergence_table(measured: Sequence[Measured]) -> str:
    heading = ["bundle", "MB"]
    heading += [
        f"{what} {budget.replace('%', ' %')}" for budget in BUDGETS for what in ("KL", "median", "first", "answers")
    ]
    rows = []
    for each in measured:
        row = [each.name, f"{each.megabytes:.2f}"]
        for budget in BUDGETS:
            found = each.divergence.get(budget)
            if found is None:
                row += ["", "", "", ""]
                continue
            kl = found.kl
            row += [f"{kl.value:.4f} ({kl.low:.4f}-{kl.high:.4f})", f"{found.median:.1e}"]
            row += [f"{100 * found.first:.1f}", f"{100 * each.same[budget]:.1f}"]
        rows.append(row)
    return _table(heading, rows)


def _accuracy_table(measured: Sequence[Measured], budget: str) -> str:
    rows = []
    for each in measured:
        cells = [each.accuracy[budget, task] for task in TASKS]
        shown = [f"{100 * one.value:.0f} ({100 * one.low:.0f}-{100 * one.high:.0f})" for one in cells]
        rows.append([each.name, *shown])
    return _table([f"{budget.replace('%', ' %')} of the visual tokens", *TASKS], rows)


def _matrix_table(rows: Sequence[Row]) -> str:
    heading = ["weights", "block", "method", "weights' error", "outputs' error", "MB/s"]
    return _table(
        heading,
        [
            [
                row.weights,
                str(row.block),
                row.method,
                f"{row.weight_error:.4f}",
                f"{row.output_error:.4f}",
                "" if row.megabytes_per_second is None else f"{row.megabytes_per_second:.0f}",
            ]
            for row in rows
        ],
    )


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
