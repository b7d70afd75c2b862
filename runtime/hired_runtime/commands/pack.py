"""hired-edge pack: a bundle as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from hired_edge.errors import InputError
from hired_runtime.commands import options
from hired_runtime.trust import packing
from hired_runtime.trust.signatures import trusted

help = "write a bundle to one file, to be sent"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("file", metavar="FILE", help="the tar to be made; the same bundle gives the same bytes")
    parser.add_argument("--engines", action="store_true", help="with what boards built (default: without)")


def run(args: argparse.Namespace) -> None:
    root, file = Path(args.bundle), Path(args.file)
    if file.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{file} lies in the bundle", expected="a file outside it", fix="name another FILE")
    found = packing.contents(root, engines=args.engines, check=trusted(options.public_keys(args)))
    packing.pack(found, file, options.bytes_bar("packing", found.bytes))
    signed = "with its signature" if found.signed else "not signed"
    left = f"; engines for {found.engines} machine(s) left out" if found.engines and not args.engines else ""
    print(f"{file}: {len(found.files)} files, {file.stat().st_size} bytes, {signed}{left}")
