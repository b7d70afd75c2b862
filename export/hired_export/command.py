"""hired-edge export: turn a LLaVA-family checkpoint into a bundle."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

help = "turn a checkpoint (LLaVA, LLaVA-NeXT, InternVL) into a bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint folder, in the Hub's or an original layout; with --synthetic, a model's shape",
    )
    parser.add_argument("out", metavar="OUT", help="the bundle's folder, which must not exist yet")
    parser.add_argument(
        "--target",
        default="cpu",
        choices=["cpu", "cuda", "jp7", "jp6"],
        help="what it will run on: ONNX Runtime's CPU provider, a PC's NVIDIA GPU, JetPack 7 or 6 (default: cpu)",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "fp16", "int8", "int4"],
        help="of the language model's weights (default: fp32 on the CPU, fp16 elsewhere)",
    )
    parser.add_argument(
        "--block-size",
        type=int,
        metavar="N",
        help="of int4: 64 or 128, on the CPU also 32 (default: 128; of a checkpoint in 4 bits, its own)",
    )
    parser.add_argument(
        "--quantisation",
        choices=["rtn", "hqq", "awq"],
        help="how int4's scales are chosen: round to nearest, search, search with calibration data (default: hqq)",
    )
    parser.add_argument(
        "--calibration", metavar="FOLDER", help="of awq: pictures and questions.jsonl, as for hired-edge eval"
    )
    parser.add_argument(
        "--calibration-tokens", type=int, default=4096, metavar="N", help="of awq, in all (default: 4096)"
    )
    parser.add_argument(
        "--embedding", choices=["fp16", "int8"], help="of the token embeddings (default: fp16, or fp32 as the weights)"
    )
    parser.add_argument(
        "--vision-precision",
        choices=["fp32", "fp16", "int8"],
        help="of the vision tower; int8 is for the CPU, where it is faster (default: fp32 on the CPU, fp16 elsewhere)",
    )
    parser.add_argument(
        "--lm-head-parts",
        type=int,
        default=1,
        metavar="N",
        help="products that the LM head is split into: 4 spares JetPack 6 contiguous memory (default: 1)",
    )
    parser.add_argument(
        "--visual-tokens", default="20%", metavar="B|P%[,...]", help="largest budgets to be asked for (default: 20%%)"
    )
    parser.add_argument("--max-text-tokens", type=int, default=512, metavar="N", help="of a prompt (default: 512)")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="of an answer (default: 256)")
    parser.add_argument("--max-batch", type=int, default=1, metavar="N", help="rows at once (default: 1)")
    parser.add_argument("--max-images", type=int, default=1, metavar="N", help="pictures of a request (default: 1)")
    parser.add_argument("--allocation-layer", type=int, default=0, metavar="L", help="of the tower (default: 0)")
    parser.add_argument(
        "--selection-layer", type=int, metavar="L", help="of the tower (default: the one that the projector reads)"
    )
    parser.add_argument(
        "--vision-tower",
        metavar="FOLDER",
        help="of an original LLaVA-1.5 or ShareGPT4V checkpoint, which names its tower and does not hold it",
    )
    parser.add_argument("--chat-template", metavar="FILE", help="jinja2, in place of the checkpoint's own")
    parser.add_argument(
        "--synthetic",
        action="store_true",
        help="random weights: CHECKPOINT is a config.json, or a name such as llava-v1.6-vicuna-7b",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of --synthetic's weights (default: 0)")
    parser.add_argument(
        "--with-keys",
        action="store_true",
        help="the vision graph gives its keys too, for policies prumerge and prumerge+ (target cpu)",
    )
    parser.add_argument("--heads", default="sum", metavar="sum|N", help="summed, or one head (default: sum)")


def run(args: argparse.Namespace) -> None:
    from hired_export.arguments import options_from  # these load torch: not for --help
    from hired_export.exporter import export
    from hired_export.summary import Stages
    from hired_export.synthetic import synthetic_checkpoint

    stages, options, given = Stages(), options_from(args), Path(args.checkpoint)
    source = synthetic_checkpoint(args.checkpoint, args.seed) if args.synthetic else nullcontext(given)
    with source as checkpoint:
        manifest = export(checkpoint, Path(args.out), options, on_stage=stages.add)
    print(f"{args.out}: exported and checked: {stages.line(manifest)}")
