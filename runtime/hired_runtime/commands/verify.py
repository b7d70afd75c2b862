"""hired-edge verify: check a bundle's files, then replay its golden inputs."""

from __future__ import annotations

import argparse

from hired_edge.bundle import Bundle
from hired_edge.engines import check_onnxruntime
from hired_runtime import golden
from hired_runtime.commands import options

help = "check a bundle's files, then replay its golden inputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--files-only", action="store_true", help="check sizes and hashes only; run nothing")


def run(args: argparse.Namespace) -> None:
    bundle = Bundle.open(args.bundle, on_bytes=options.verification_bar(args.bundle))
    print(f"files   {len(bundle.manifest.files)} as in the manifest")
    if args.files_only:
        return
    check_onnxruntime()
    from hired_runtime import ort  # the engine: not needed to check files

    backend = ort.load(bundle, golden.limits(bundle.manifest))
    for result in golden.replay(bundle, backend):
        print(f"golden  {result.piece}: largest error {result.error:.1e}, tolerance {result.tolerance:.1e}")
    print(f"engine  {backend.name}")
