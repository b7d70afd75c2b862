"""`profile.html`: one page with everything in it, that opens without a network, in light and in dark.

It is made from a `Profile` alone: the one that was just measured, or one read back from `profile.json`, gives the same
page to the last byte, with the same matplotlib.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from hired_runtime.profiling import plots, table
from hired_runtime.profiling.schema import TIMINGS, BudgetProfile, Profile
from hired_runtime.profiling.spread import NAMES, Statistics

_CSS = """
:root { color-scheme: light dark; --ink: #1c1c1e; --paper: #fff; --faint: #5f6368; --grid: #d9dce0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #17181a; --faint: #a2a6ad; --grid: #3a3d42; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 50rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, figcaption { color: var(--faint); margin: 0 0 .75rem; }
figcaption { font-size: .9rem; }
figure { margin: 2rem 0 0; }
svg { display: block; max-width: 100%; height: auto; margin-top: .5rem; color: var(--ink); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child, .facts td { text-align: left; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
.facts th { text-align: left; vertical-align: top; font-weight: normal; color: var(--faint); }
thead th { font-weight: 600; }
td.in { padding-left: 1.2rem; color: var(--faint); }
"""

_NOTES = {
    "a request": "the pictures are decoded, cut and encoded, tokens are selected, the prompt is prefilled, and a fixed "
    "number of new tokens is made: decoding does not end at a stop token, so every iteration does the same work",
    "time to first token": "preprocess + vision + select + prefill, from the start of the request",
    "throughput": "all new tokens by the time of the whole request, pictures included",
    "process peak": "the largest resident set that was sampled, mapped files included; each budget has its own process",
    "system peak": "MemTotal - MemAvailable, above what was in use before the bundle was opened; other programs count",
    "p95": "95th percentile, linear between the two nearest values; stddev is a sample's (n - 1)",
}


def page(profile: Profile) -> str:
    """The page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    request, bundle = profile.request, profile.bundle
    title = f"Profile of {bundle.checkpoint} ({bundle.precision}, {bundle.target})"
    pictures = ", ".join(f"{each.name} ({each.width} x {each.height})" for each in request.images)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(table.summary(profile))}</p>",
        _table(table.rows(profile)),
        _figure(
            "Where the time goes",
            plots.stages(profile),
            f"Mean milliseconds of each stage of a request, over {request.iterations} iterations; decode makes the "
            f"{request.new_tokens - 1} tokens after the first.",
        ),
        _figure(
            "Time to first token, and tokens a second",
            plots.speed(profile),
            "Medians; a whisker goes from the lowest iteration to the 95th percentile. Whole request: all new tokens "
            "by the total time. Decoding alone: tokens after the first, by the time of their steps.",
        ),
        _figure(
            "Memory",
            plots.memory(profile),
            "The cache is what the budget decides: allocated once, at opening. The process's peak holds all of it: "
            "engine, weights as the engine lays them out, cache, activations, libraries.",
        ),
        "<h2>All statistics</h2>",
        *(_statistics(each) for each in profile.budgets),
        "<h2>What was measured</h2>",
        _facts(
            {
                "checkpoint": f"{bundle.checkpoint} ({bundle.family}, {bundle.target}, {bundle.precision})",
                "manifest": bundle.digest,
                "pictures": pictures,
                "prompt": f"{request.prompt} ({request.text_tokens} tokens with its template)",
                "selection": f"policy {request.policy}, alpha {request.alpha}, "
                f"newlines {request.newlines or 'by default'}",
                "request": f"batch {request.batch}, {request.new_tokens} new tokens, {request.warmup} warm-ups, "
                f"{request.iterations} iterations, threads {request.threads or 'by the engine'}",
                **_machine(profile),
                **{name.replace("_", "-"): value for name, value in vars(profile.versions).items()},
            }
        ),
        "<h2>What the words mean</h2>",
        _facts(_NOTES),
    ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _machine(profile: Profile) -> dict[str, str]:
    machine = profile.machine
    facts = {
        "machine": f"{machine.processor}, {machine.cores} cores, {machine.memory_bytes / 2**30:.1f} GiB "
        f"({machine.architecture})",
        "system": machine.system,
        "load before": f"{machine.load_average:.2f} (one-minute average)",
    }
    if machine.board is not None:
        facts |= {
            "board": machine.board.model or "unknown",
            "L4T": machine.board.l4t or "unknown",
            "power mode": machine.board.power_mode or "unknown",
        }
    return facts


def _statistics(budget: BudgetProfile) -> str:
    figures: dict[str, Statistics | None] = {f"{name}, ms": budget.timings_ms[name] for name in TIMINGS}
    figures["time per output token, ms"] = budget.time_per_output_token_ms
    figures["decoding alone, tokens/s"] = budget.decode_tokens_per_s
    figures["throughput, tokens/s"] = budget.tokens_per_s
    rows = [
        [name, *(f"{getattr(found, part):.2f}" for part in NAMES)]
        for name, found in figures.items()
        if found is not None
    ]
    visual, load = budget.visual, budget.load
    text = (
        f"{visual.kept} of {visual.eligible} patches kept and {visual.newlines} newlines, of a budget of "
        f"{visual.budget}; cache {budget.cache_bytes} bytes for {budget.max_sequence_length} positions; opened in "
        f"{load.total_ms:.0f} ms, of which {load.verify_ms:.0f} ms went into verifying its files."
    )
    return f"<h3>{html.escape(budget.budget)}</h3>\n<p>{html.escape(text)}</p>\n{_table([['', *NAMES], *rows])}"


def _figure(title: str, drawing: str, caption: str) -> str:
    return (
        f"<h2>{html.escape(title)}</h2>\n<figure>\n{drawing}\n"
        f"<figcaption>{html.escape(caption)}</figcaption>\n</figure>"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *rest = rows
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in heading)
    body = "\n".join(f"<tr>{_cells(row)}</tr>" for row in rest)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _cells(row: Iterable[str]) -> str:
    first, *others = row
    indented = ' class="in"' if first.startswith(" ") else ""
    return f"<td{indented}>{html.escape(first.strip())}</td>" + "".join(
        f"<td>{html.escape(cell)}</td>" for cell in others
    )


def _facts(facts: dict[str, str]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<div class="wide"><table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table></div>'
