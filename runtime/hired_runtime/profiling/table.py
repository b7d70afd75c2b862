"""A profile as a table in a terminal, after the paper's Table 4: a column a budget; speed, latency and memory down."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hired_runtime.pipeline import STAGES
from hired_runtime.profiling.schema import BudgetProfile, Profile
from hired_runtime.profiling.spread import Statistics

MIB = 2**20


class Row(NamedTuple):
    """A figure, and how it is read off a budget; None where there is none."""

    name: str
    value: Callable[[BudgetProfile], float | int | None]
    digits: int = 1


def _median(statistics: Statistics | None) -> float | None:
    return None if statistics is None else statistics.median


def _stage(name: str) -> Row:
    return Row(f"  {name}", lambda each: each.timings_ms[name].median)


ROWS: tuple[Row, ...] = (
    Row("visual tokens kept", lambda each: each.visual.kept + each.visual.newlines),
    Row("throughput, tokens/s", lambda each: each.tokens_per_s.median, 2),
    Row("decoding alone, tokens/s", lambda each: _median(each.decode_tokens_per_s), 2),
    Row("time to first token, ms", lambda each: each.timings_ms["ttft"].median),
    *(_stage(name) for name in STAGES if name != "decode"),
    Row("time per output token, ms", lambda each: _median(each.time_per_output_token_ms), 2),
    Row("whole request, ms", lambda each: each.timings_ms["total"].median),
    Row("key-value cache, MiB", lambda each: each.cache_bytes / MIB),
    Row("process peak, MiB", lambda each: each.memory.process_peak_bytes / MIB),
    Row("system peak above base, MiB", lambda each: _above(*each.memory.system)),
    Row("GPU peak above base, MiB", lambda each: _above(*each.memory.gpu)),
    Row("mean power, W", lambda each: each.power and each.power.mean_w, 2),
    Row("energy per answer, J", lambda each: each.power and each.power.energy_per_answer_j, 2),
    Row("peak temperature, C", lambda each: each.power and each.power.peak_temperature_c),
)


def rows(profile: Profile) -> list[list[str]]:
    """A heading, and a row for each figure that any budget has. Times and rates are medians."""
    heading = ["budget", *(each.budget for each in profile.budgets)]
    found = [(row, [row.value(each) for each in profile.budgets]) for row in ROWS]
    return [heading] + [
        [row.name, *(_written(value, row.digits) for value in values)]
        for row, values in found
        if any(value is not None for value in values)
    ]


def text(profile: Profile) -> str:
    """The table, under a line that says what each iteration does."""
    table = rows(profile)
    first, *others = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        f"{row[0]:<{first}}"
        + "".join(f"  {cell:>{max(8, width)}}" for cell, width in zip(row[1:], others, strict=True))
        for row in table
    ]
    return "\n".join([summary(profile), *lines])


def summary(profile: Profile) -> str:
    """One line: what was asked, how often, with what."""
    request, bundle = profile.request, profile.bundle
    rows = "" if request.batch == 1 else f"batch {request.batch}, "
    visual = "/".join(dict.fromkeys(str(each.visual.total) for each in profile.budgets))
    return (
        f"{bundle.checkpoint} ({bundle.precision}, {bundle.target}) on {profile.versions.engine}: "
        f"{rows}{visual} visual and {request.text_tokens} text tokens, {request.new_tokens} new ones; "
        f"medians of {request.iterations}, policy {request.policy}"
    )


def _above(base: int | None, peak: int | None) -> float | None:
    return None if base is None or peak is None else (peak - base) / MIB


def _written(value: float | int | None, digits: int) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"
