"""hired-edge plan: what fits a device, and how fast it could be, from config.json alone."""

from __future__ import annotations

import argparse
import json
from typing import get_args

from hired_edge.budget import parse_budget
from hired_edge.errors import InputError
from hired_edge.manifest import Precision, Target

help = "say what fits a device, and how fast it could be, from config.json alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CHECKPOINT-OR-CONFIG",
        help="a checkpoint's folder, a config.json, or llava-v1.6-vicuna-7b, ...",
    )
    parser.add_argument(
        "--device",
        required=True,
        metavar="NAME|FILE",
        help="orin-nx-16gb, orin-nx-8gb, orin-nano-8gb, agx-orin-64gb, or a JSON file of the same fields",
    )
    parser.add_argument("--target", default="jp7", choices=list(get_args(Target)), help="(default: jp7)")
    parser.add_argument(
        "--precision", metavar="P[,...]", help=f"of {', '.join(get_args(Precision))} (default: all of the target's)"
    )
    parser.add_argument("--block-size", type=int, metavar="N", help="of int4 (default: the target's)")
    parser.add_argument("--vision-precision", choices=["fp32", "fp16", "int8"], help="of the tower, as for export")
    parser.add_argument("--embedding", choices=["fp16", "int8"], help="of the token embeddings, as for export")
    parser.add_argument(
        "--visual-tokens", default="100%,40%,20%", metavar="B|P%[,...]", help="budgets (default: 100%%,40%%,20%%)"
    )
    parser.add_argument("--max-text-tokens", type=int, default=512, metavar="N", help="of a prompt (default: 512)")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="of an answer (default: 256)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="rows at once (default: 1)")
    parser.add_argument("--images", type=int, default=1, metavar="N", help="pictures of a row (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> None:
    from hired_edge.planner import report
    from hired_edge.planner.config import read_model
    from hired_edge.planner.devices import read_device
    from hired_edge.planner.footprint import Request
    from hired_edge.planner.plan import plan

    made = plan(
        read_model(args.config),
        read_device(args.device),
        args.target,
        _precisions(args.precision, args.target),
        [parse_budget(part) for part in args.visual_tokens.split(",")],
        Request(args.max_text_tokens, args.max_new_tokens, args.batch, args.images),
        args.block_size,
        vision=args.vision_precision,
        embedding=args.embedding,
    )
    print(report.table(made))
    if args.json:
        print(json.dumps(report.as_json(made), allow_nan=False))


def _precisions(text: str | None, target: Target) -> list[Precision]:
    from hired_edge.planner.storage import TARGETS

    known: dict[str, Precision] = {name: name for name in TARGETS[target].precisions}
    if text is None:
        return list(known.values())
    asked = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in asked:
        if name not in known:
            expected = " or ".join(known)
            raise InputError(f"--precision {name[:40]} with --target {target}", expected=expected, fix="choose another")
    return [known[name] for name in asked]
