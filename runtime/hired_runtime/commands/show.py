"""hired-edge show: draw which visual tokens of a picture are kept."""

from __future__ import annotations

import argparse

import hired_runtime
from hired_runtime.commands import options
from hired_runtime.drawing import draw_kept
from hired_runtime.pictures import load_picture
from hired_runtime.pipeline import Request

help = "draw which visual tokens of a picture are kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write the drawing (PNG)")
    options.add_selection(parser)
    options.add_backend(parser)


def run(args: argparse.Namespace) -> None:
    picture = load_picture(args.image)
    request = Request((), [picture], args.visual_tokens, policy=args.policy, alpha=args.alpha, newlines=args.newlines)
    keys = options.public_keys(args)
    model = hired_runtime.open(
        args.bundle,
        visual_tokens=args.visual_tokens,
        images=1,
        threads=options.positive("--threads", args.threads),
        backend=args.backend,
        public_keys=keys,
        on_bytes=options.verification_bar(args.bundle, keys),
    )
    (selection,) = model.pipeline.look(request)
    rules = model.pipeline.manifest.vision.preprocess
    draw_kept(picture, selection.tiling, selection.indices, args.output, rules=rules)
    print(f"{args.output}: {selection.kept} of {selection.eligible} tokens kept")
