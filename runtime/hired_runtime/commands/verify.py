"""hired-edge verify: check a bundle's files, then replay its golden inputs."""

from __future__ import annotations

import argparse

from hired_edge.bundle import Bundle
from hired_runtime import backends, golden
from hired_runtime.commands import options

help = "check a bundle's files, then replay its golden inputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    options.add_backend(parser)
    parser.add_argument("--files-only", action="store_true", help="check sizes and hashes only; run nothing")


def run(args: argparse.Namespace) -> None:
    bundle = Bundle.open(args.bundle, on_bytes=options.verification_bar(args.bundle))
    print(f"files   {len(bundle.manifest.files)} as in the manifest")
    if args.files_only:
        return
    backend = backends.load(backends.choose(bundle.root, args.backend), bundle, golden.limits(bundle.manifest))
    for result in golden.replay(bundle, backend):
        print(f"golden  {result.piece}: largest error {result.error:.1e}, tolerance {result.tolerance:.1e}")
    print(f"engine  {backend.name}")
