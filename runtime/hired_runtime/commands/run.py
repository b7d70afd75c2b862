"""hired-edge run: answer a question about pictures."""

from __future__ import annotations

import argparse
import dataclasses
import sys

import hired_runtime
from hired_runtime.commands import options
from hired_runtime.pipeline import STAGES, Answer, Request
from hired_runtime.prompt import question

help = "answer a question about pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="a picture; may be repeated")
    parser.add_argument("--prompt", required=True, help="the question")
    options.add_request(parser)
    parser.add_argument("--stream", action="store_true", help="print the answer while it is made")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> None:
    request = Request(question(args.prompt, len(args.image)), args.image, **options.request_options(args))
    keys = options.public_keys(args)
    # The cache is sized by what is asked for, not by what was exported.
    model = hired_runtime.open(
        args.bundle,
        visual_tokens=args.visual_tokens,
        images=max(1, len(args.image)),
        threads=options.positive("--threads", args.threads),
        backend=args.backend,
        public_keys=keys,
        on_bytes=options.verification_bar(args.bundle, keys),
    )
    generation = model.pipeline.generate(request)
    if args.stream:
        for piece in generation:
            print(piece, end="", flush=True)
        print()
    answer = generation.answer
    if args.json:
        options.print_json(report(answer))
    elif not args.stream:
        print(answer.text)
    if not args.json:
        print(summary(answer), file=sys.stderr)


def report(answer: Answer) -> dict:
    """The object that `--json` prints."""
    rate = answer.decode_tokens_per_s
    return {
        "text": answer.text,
        "tokens": answer.tokens,
        "visual": options.visual_report(answer.selections),
        "limits": dataclasses.asdict(answer.limits),
        "timings_ms": {name: round(answer.timings_ms.get(name, 0.0), 3) for name in (*STAGES, "ttft", "total")},
        "decode_tokens_per_s": None if rate is None else round(rate, 3),
        "peak_memory_mb": round(answer.peak_memory_mb, 1),
    }


def summary(answer: Answer) -> str:
    """Two lines for people: what was kept, and where the time went."""
    kept = [
        f"{s.visual_tokens} of {s.tiling.stock_tokens} visual tokens ({s.policy}, {s.unused} of the budget unused)"
        for s in answer.selections
    ]
    times = [f"{name} {answer.timings_ms.get(name, 0.0):.0f}" for name in (*STAGES, "ttft", "total")]
    rate = answer.decode_tokens_per_s
    speed = "" if rate is None else f"; {rate:.1f} tokens/s"
    lines = ["; ".join(kept), f"ms: {', '.join(times)}{speed}; peak {answer.peak_memory_mb:.0f} MiB"]
    return "\n".join(line for line in lines if line)
