"""`python -m demo.training.bundle`: exports the committed checkpoint, demo/checkpoint, to demo/bundle.

As `hired-edge export` does with these limits. Another `--precision` and `--out` make what it is compared with: int4 as
demo/README.md reports it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from demo.folders import check_replaceable
from hired_edge.manifest import Precision
from hired_export import parity
from hired_export.activation_aware.calibrate import calibrate
from hired_export.exporter import ExportOptions, export

DEMO = Path(__file__).resolve().parent.parent
CHECKPOINT, BUNDLE = DEMO / "checkpoint", DEMO / "bundle"
LIMITS = {
    "visual_tokens": ("100%", "40%", "20%", "10%"),
    "max_text_tokens": 64,
    "max_new_tokens": 16,
    "max_batch": 8,
    "max_images": 1,
}
INT4 = {"block_size": 32, "quantisation": "rtn"}
"""Of the int4 that demo/README.md reports; `demo.quantisation` compares the others."""


def make(out: Path, precision: Precision = "fp32", **options: Any) -> None:
    """Replaces `out`, a bundle or nothing.

    Args:
        out: its folder.
        precision, options: of the export, beside LIMITS.

    Raises:
        InputError: `out` is something else.
    """
    check_replaceable(out, "manifest.json")
    fresh = out.with_name(f"{out.name}.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    chosen = ExportOptions(precision=precision, progress=False, **LIMITS, **options)
    export(CHECKPOINT, fresh, chosen, check=parity.check, calibrate=calibrate)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.training.bundle", description=__doc__)
    parser.add_argument("--precision", choices=("fp32", "int8", "int4"), default="fp32", help="(default: fp32)")
    parser.add_argument("--out", type=Path, default=BUNDLE, metavar="DIR", help="(default: demo/bundle)")
    args = parser.parse_args()
    make(args.out, args.precision, **(INT4 if args.precision == "int4" else {}))


if __name__ == "__main__":
    main()
