"""`python -m benchmarks.scaling`: boards for so many pictures a day, their network, the cost of a million pictures.

Arithmetic on what you give it, nothing else: the formulae are in docs/scaling.md. No figure of a board, of a price or
of a current comes from this repository.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass

from benchmarks.command import guarded
from demo.reports import table
from hired_edge.errors import InputError

DAY_S = 86_400
YEAR_DAYS = 365
MILLION = 1_000_000


@dataclass(frozen=True)
class Assumptions:
    """What the reader brings.

    Args:
        pictures_per_day: N.
        utilisation: u, the share of a day that a board answers, above 0 and at most 1.
        watts: W, that a board draws, on average over the day.
        board_price: P, of a board with what it needs, in any currency.
        years: Y, that it is in use.
        kwh_price: E, in the same currency.
        picture_bytes: b, of a file.
        answer_bytes: a, of a row of the output.
    """

    pictures_per_day: float
    utilisation: float
    watts: float
    board_price: float
    years: float
    kwh_price: float
    picture_bytes: float
    answer_bytes: float


@dataclass(frozen=True)
class Fleet:
    """What follows for s seconds a picture.

    Args:
        seconds: s.
        boards: ceil(N s / (86400 u)).
        pictures_per_board: 86400 u / s, a day.
        megabits_per_s: N (b + a) 8 / 86400, over all boards, in millions.
        kwh_per_million: 10^6 s W / (3.6 10^6 u).
        hardware_per_million: 10^6 P s / (365 Y 86400 u).
        energy_per_million: the kilowatt hours' price.
    """

    seconds: float
    boards: int
    pictures_per_board: float
    megabits_per_s: float
    kwh_per_million: float
    hardware_per_million: float
    energy_per_million: float

    @property
    def cost_per_million(self) -> float:
        return self.hardware_per_million + self.energy_per_million


def fleet(seconds: float, given: Assumptions) -> Fleet:
    """What `seconds` a picture come to."""
    busy_s = seconds / given.utilisation  # of a board's time for each picture
    kwh = MILLION * busy_s * given.watts / 3.6e6
    return Fleet(
        seconds=seconds,
        boards=math.ceil(given.pictures_per_day * busy_s / DAY_S),
        pictures_per_board=DAY_S / busy_s,
        megabits_per_s=given.pictures_per_day * (given.picture_bytes + given.answer_bytes) * 8 / DAY_S / 1e6,
        kwh_per_million=kwh,
        hardware_per_million=MILLION * given.board_price * busy_s / (given.years * YEAR_DAYS * DAY_S),
        energy_per_million=kwh * given.kwh_price,
    )


def report(labels: list[str], fleets: list[Fleet]) -> str:
    """A table in Markdown."""
    heads = [
        "",
        "s a picture",
        "boards",
        "pictures a board and day",
        "Mbit/s",
        "kWh",
        "boards' price",
        "energy",
        "both",
    ]
    rows = [
        [
            label,
            f"{each.seconds:g}",
            str(each.boards),
            f"{each.pictures_per_board:,.0f}",
            f"{each.megabits_per_s:.2f}",
            *(
                f"{value:,.0f}"
                for value in (
                    each.kwh_per_million,
                    each.hardware_per_million,
                    each.energy_per_million,
                    each.cost_per_million,
                )
            ),
        ]
        for label, each in zip(labels, fleets, strict=True)
    ]
    return f"The last four of a million pictures.\n\n{table(heads, rows)}"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seconds {text}", expected="numbers between commas", fix="write it as 301,59") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--seconds", required=True, metavar="S[,S]", help="for a picture and its answer")
    parser.add_argument("--labels", metavar="L[,L]", help="what they are of (default: the numbers themselves)")
    for name, words in (
        ("pictures-per-day", "N"),
        ("utilisation", "share of the day that a board answers, above 0 and up to 1"),
        ("watts", "of a board, on average"),
        ("board-price", "with what it needs"),
        ("years", "that a board is in use"),
        ("kwh-price", "in the same currency"),
        ("picture-bytes", "of a file"),
        ("answer-bytes", "of a row of the output"),
    ):
        parser.add_argument(f"--{name}", type=float, required=True, metavar="X", help=words)
    args = parser.parse_args()
    seconds = _numbers(args.seconds)
    labels = args.labels.split(",") if args.labels else [f"{each:g} s" for each in seconds]
    names = list(Assumptions.__dataclass_fields__)
    given = Assumptions(**{name: getattr(args, name) for name in names})
    for name, value in [*asdict(given).items(), *(("seconds", each) for each in seconds)]:
        if not (math.isfinite(value) and value > 0) or (name == "utilisation" and value > 1):
            raise InputError(
                f"--{name.replace('_', '-')} {value:g}",
                expected="more than 0, a utilisation up to 1",
                fix="pass another",
            )
    if len(labels) != len(seconds):
        raise InputError(
            f"{len(labels)} labels", expected=f"{len(seconds)}, as there are --seconds", fix="pass as many"
        )
    fleets = [fleet(each, given) for each in seconds]
    print(report(labels, fleets))
    print(json.dumps({"given": asdict(given), "fleets": [asdict(each) for each in fleets]}))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("python -m benchmarks.scaling", main, "nothing was written"))
