"""hired-edge doctor: what this machine has, what of it really works, what is wrong and the command that mends it.

Exit status 0 if no problem was found (warnings are none), 1 if one was. It changes nothing and asks for no password:
what only root may read is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import textwrap

from hired_runtime.board.machine import Machine
from hired_runtime.board.readings import read
from hired_runtime.board.rules import Finding, findings
from hired_runtime.commands import options

help = "check what this machine has, what of it works, and how to mend the rest"

LEVELS = ("ok", "warning", "problem")  # from the best to the worst


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit status: 0 without a problem, whatever the warnings; 1 with one"
    parser.add_argument("--json", action="store_true", help="print one JSON object: findings, and all readings")


def run(args: argparse.Namespace) -> int:
    try:
        readings = read(Machine(), _show_step)
    finally:
        _show_step("")
    found = findings(readings)
    worst = max(found, key=lambda finding: LEVELS.index(finding.level)).level
    if args.json:
        listed = [dataclasses.asdict(finding) for finding in found]
        options.print_json({"status": worst, "findings": listed, "readings": dataclasses.asdict(readings)})
    else:
        print(describe(found, shutil.get_terminal_size((100, 0)).columns))
    return int(worst == "problem")


def describe(found: list[Finding], width: int) -> str:
    """A page for people: a finding a line, the mend below what it mends."""
    names = max(len(finding.name) for finding in found)
    lines = []
    for finding in found:
        lines += _wrapped(f"{finding.level:<7}  {finding.name:<{names}}  ", finding.found, width)
        if finding.fix is not None:
            lines.append(f"{'':{9 + names}}  -> {finding.fix}")  # not wrapped: it is there to be copied
    counts = {level: sum(finding.level == level for finding in found) for level in LEVELS}
    lines.append(f"{_count(counts['problem'], 'problem')}, {_count(counts['warning'], 'warning')}")
    return "\n".join(lines)


def _wrapped(head: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, len(head) + 30), initial_indent=head, subsequent_indent=" " * len(head))


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _show_step(step: str) -> None:
    """What is tried at the moment, on stderr, if anyone is looking; "" clears the line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{step and f'trying {step} ...'}", end="", file=sys.stderr, flush=True)
