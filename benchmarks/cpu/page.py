"""docs/performance.md: what a run found, as tables of ratios. It measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from benchmarks.cpu.measuring import PROMPTS
from benchmarks.cpu.results import LLAMA, OURS, OURS_BESIDE_TORCH, TORCH, Run, ratio
from benchmarks.shapes import BATCHES, BUDGETS, NEW_TOKENS, TEXT_TOKENS
from hired_edge.budget import parse_budget
from hired_edge.limits import Limits
from hired_edge.plan import kv_cache_bytes
from hired_edge.planner.config import model_shape
from hired_edge.planner.footprint import Request, footprint, text_model
from hired_edge.planner.published import PUBLISHED
from hired_edge.planner.shapes import ModelShape
from hired_edge.planner.storage import stored

GIB = 2**30
OWN = ("preprocess", "select", "splice")
"""Stages that only a runtime with a budget has, or that are numpy and Pillow."""

HEAD = """# On a CPU

What `make bench` and `python -m benchmarks.vision` measured, newest first. Two things that differ in machine or date
are not to be compared; within a table all sides were asked in turn, round after round, with the same number of threads,
but for PyTorch's engine, which was measured in rounds of its own, ours beside it. Weights are random and of the true
shape: times and memory do not depend on them.
"""


def section(run: Run) -> str:
    """One run."""
    few, many = run.layers
    lines = [
        f"## {run.written}: {run.shape}, int4 in blocks of {run.block_size}, the tower in {run.vision}",
        "",
        run.where.line(run.command),
        "",
        f"The text model was measured with {few} and with {many} of its {run.depth} layers and its whole LM head; what",
        f'is called "{run.depth} layers" lies on the line through both.',
        "",
        *engines(run),
        *wait(run),
        *own(run),
        *memory(run),
        *time(run),
    ]
    if run.left_out:
        lines += [f"Left out: {'; '.join(run.left_out)}.", ""]
    return "\n".join(lines) + "\n"


def engines(run: Run) -> list[str]:
    """Prefill and decode of every side."""
    many = run.layers[1]
    heading = ["", f"{many} layers, ms", f"{LLAMA}, ms", f"times {LLAMA}'s speed", f"the same, {run.depth} layers"]
    heading += [f"{TORCH}, ms", "ours beside it, ms", f"times {TORCH}'s speed, {many} layers"]
    rows = []
    for what in [f"{stage} {tokens}" for stage in ("prefill", "decode") for tokens in PROMPTS]:
        ours, llama, torch, beside = (run.median(side, what) for side in (OURS, LLAMA, TORCH, OURS_BESIDE_TORCH))
        full = ratio(run.full(LLAMA, what), run.full(OURS, what))
        first = [_ms(ours), _ms(llama), _times(ratio(llama, ours)), _times(full)]
        rows.append([_named(what), *first, _ms(torch), _ms(beside), _times(ratio(torch, beside))])
    count = max((len(each.seconds) for each in run.series), default=0)
    return [
        "### Engine against engine, at equal tokens",
        "",
        *table(heading, rows),
        "",
        f"Medians of {count}. Ours: blocks of {run.block_size}, LM head in int8, float32 cache. llama.cpp: Q4_0",
        "(blocks of 32), output in Q6_K, fp16 cache. PyTorch: float32. Equal bytes and equal accuracy are not claimed.",
        "",
    ]


def wait(run: Run) -> list[str]:
    """Time to the first token of the whole model: the vision side as measured, and the prefill on the line."""
    short, long = PROMPTS
    ours_20, ours_100 = first_token(run, OURS, "20%", short), first_token(run, OURS, "100%", long)
    llama, torch = run.full(LLAMA, f"prefill {long}"), first_token(run, TORCH, "20%", short)
    beside = first_token(run, OURS_BESIDE_TORCH, "20%", short)
    rows = [
        [f"{OURS}, 20 % ({short} tokens)", _s(ours_20), ""],
        [f"{OURS}, 100 % ({long} tokens)", _s(ours_100), _times(ratio(ours_100, ours_20))],
        [f"{LLAMA}, 100 % ({long} tokens), language model alone", _s(llama), _times(ratio(llama, ours_20))],
        [f"HiRED in {TORCH}, float32, 20 % ({short} tokens)", _s(torch), _times(ratio(torch, beside))],
    ]
    return [
        f"### The user's whole wait: time to first token at {run.depth} layers",
        "",
        *table(["", "s", f"times that of {OURS} at 20 %"], rows),
        "",
        "The picture's part is measured as it is, the prefill lies on the line. llama.cpp's own vision is not in its",
        "figure, so its wait is longer than this.",
        *([f"Against {TORCH}'s stands what {OURS} took in those rounds, {_s(beside)} s."] if beside else []),
        "",
    ]


def first_token(run: Run, side: str, budget: str, tokens: int) -> float | None:
    """Seconds: the vision side of a picture, and the prefill at full depth."""
    prefill, seen = run.full(side, f"prefill {tokens}"), before_prefill(run, side, budget)
    return None if prefill is None or seen is None else prefill + seen


def before_prefill(run: Run, side: str, budget: str) -> float | None:
    """Seconds of the vision side: one figure, or its stages' sum. Ours was measured once, in rounds with PyTorch's."""
    side = OURS if side == OURS_BESIDE_TORCH else side
    whole = run.median(side, f"see {budget}", run.layers[0])
    if whole is not None:
        return whole
    stages = [run.median(side, f"see {budget} {stage}", run.layers[0]) for stage in (*OWN, "vision")]
    found = [seconds for seconds in stages if seconds is not None]
    return sum(found) if len(found) == len(stages) else None


def own(run: Run) -> list[str]:
    """What a runtime with a budget adds."""
    short = PROMPTS[0]
    total = first_token(run, OURS, "20%", short)
    stages = [run.median(OURS, f"see 20% {stage}", run.layers[0]) for stage in OWN]
    if any(seconds is None for seconds in stages):
        return []
    spent = sum(seconds for seconds in stages if seconds is not None)
    share = "" if total is None else f": {100 * spent / total:.2f} % of the time to first token at 20 %"
    each = ", ".join(f"{stage} {_ms(seconds)} ms" for stage, seconds in zip(OWN, stages, strict=True))
    rows = [[name, _ms(median(seconds))] for name, seconds in run.policies.items()]
    return [
        "### What is ours in it",
        "",
        f"At 20 %: {each}{share}.",
        "",
        *table(["selection of 576 of 2,880 tokens by", "ms"], rows),
        "",
    ]


def memory(run: Run) -> list[str]:
    """The shape of the paper's Table 4: what the whole model takes by the plan, and what fewer layers took."""
    if not run.peaks:
        return []
    few = run.layers[0]
    model = model_shape(PUBLISHED[run.shape].config)
    parameters = model.language_tensors | model.embedding_tensors | model.vision_tensors
    float32 = 4 * sum(math.prod(shape) for shape in parameters.values())
    small = replace(model, text=replace(model.text, layers=few))
    weights, text = stored(model, "cpu", "int4", run.block_size, vision=run.vision), text_model(model, "cpu")
    rows = []
    for batch in BATCHES:
        for budget in BUDGETS:
            limits = Request(TEXT_TOKENS, NEW_TOKENS, batch).limits(model, parse_budget(budget))
            cache = kv_cache_bytes(text, limits.max_sequence_length, batch)
            ours, torch = (_peak(run, side, budget, batch) for side in (OURS, TORCH))
            each = [_gib(cache), _gib(weights.weights + weights.embedding), _gib(_planned(run, model, limits))]
            each += [_gib(_planned(run, small, limits)), _gib(ours), _gib(torch), _share(ratio(ours, torch))]
            rows.append([str(batch), budget.replace("%", " %"), *each])
    whole_model = [f"{what}, {run.depth} layers, GiB" for what in ("KV cache", "bundle", "planned peak")]
    measured = [f"planned peak, {few} layer(s), GiB", "measured, GiB", f"{TORCH}'s, float32, GiB", f"of {TORCH}'s"]
    return [
        "### Memory",
        "",
        *table(["batch", "budget", *whole_model, *measured], rows),
        "",
        "Peaks are of a process while it answers one request, after it has loaded; they differ from run to run, as the",
        f"C library holds freed blocks or does not. The float32 weights of all {run.depth} layers, which {TORCH} holds,"
        f" are {_gib(float32)} GiB alone.",
        "",
    ]


def _planned(run: Run, model: ModelShape, limits: Limits) -> int:
    weights = stored(model, "cpu", "int4", run.block_size, vision=run.vision)
    return footprint(model, "cpu", weights, limits, PROCESS_BYTES).peak


PROCESS_BYTES = 120 * 2**20
"""Of a process without a model, for the planner: about what `hired-edge inspect --measure` finds here."""


def _peak(run: Run, side: str, budget: str, batch: int) -> float | None:
    wanted = (side, budget, batch, run.layers[0])
    found = [each.bytes for each in run.peaks if (each.side, each.budget, each.batch, each.layers) == wanted]
    return float(found[0]) if found else None


def time(run: Run) -> list[str]:
    """Shares of operators, and how near the products come to what the machine does at best."""
    ceilings = run.ceilings
    size = " x ".join(map(str, ceilings.product))
    lines = [
        "### Where the time goes",
        "",
        f"Ceilings, measured with PyTorch: {ceilings.flops_per_s / 1e9:.0f} GFLOP/s in float32 ({size}),"
        f" {ceilings.read_bytes_per_s / 1e9:.1f} GB/s read (a sum), {ceilings.bytes_per_s / 1e9:.1f} GB/s read and"
        " written (a copy). int8 products may exceed float32's.",
        "",
    ]
    rows = []
    for what, shares in run.shares.items():
        total = sum(share.seconds for share in shares)
        named = ", ".join(f"{share.operator} {100 * share.seconds / total:.1f} %" for share in shares)
        rows.append([_named(what), named, of_ceiling(run, what)])
    return [*lines, *table(["", "operators", "beside the machine's best"], rows), ""] if rows else [*lines]


def of_ceiling(run: Run, what: str) -> str:
    """One more layer in its time: a prefill's arithmetic in its matrices, the bytes that a decode step reads."""
    few, many = (run.median(OURS, what, layers) for layers in run.layers)
    if few is None or many is None:
        return ""
    model = model_shape(PUBLISHED[run.shape].config)
    seconds = (many - few) / (run.layers[1] - run.layers[0])
    stage, tokens = what.split()
    if stage == "prefill":
        reached = 2 * model.text.layer_elements * int(tokens) / seconds
        return f"{100 * reached / run.ceilings.flops_per_s:.0f} % of float32's arithmetic"
    reached = _layer_bytes(run, model, int(tokens)) / seconds
    read, copied = run.ceilings.read_bytes_per_s, run.ceilings.bytes_per_s
    return f"{100 * reached / read:.0f} % of the bytes read, {100 * reached / copied:.0f} % of the copy's"


def _layer_bytes(run: Run, model: ModelShape, cached: int) -> float:
    """That a decode step reads of one layer: its matrices as the engine packs them, and keys and values so far."""
    one, two = (
        stored(replace(model, text=replace(model.text, layers=layers)), "cpu", "int4", run.block_size)
        for layers in (1, 2)
    )
    cache = kv_cache_bytes(text_model(model, "cpu"), cached, 1) / model.text.layers
    return two.matrices + two.repacked - one.matrices - one.repacked + cache


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (heading, ["---"] * len(heading), *rows)]


def _named(what: str) -> str:
    stage, tokens = what.split()
    return f"prefill of {tokens}" if stage == "prefill" else f"decode behind {tokens}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.0f}" if seconds >= 1 else f"{1e3 * seconds:.4g}"


def _s(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _gib(size: float | None) -> str:
    return "" if size is None else f"{size / GIB:.2f}"
