"""hired-edge unpack: a bundle out of the file that pack wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from hired_runtime.commands import options
from hired_runtime.trust import unpacking
from hired_runtime.trust.keys import load_public_key
from hired_runtime.trust.signatures import trusted

help = "make a bundle from the file that pack wrote"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the tar")
    parser.add_argument("out", metavar="OUT", help="the folder to be made")
    parser.add_argument(
        "--public-key",
        action="append",
        metavar="PUBLIC-KEY",
        help="the bundle, and engines in the file, must be signed by this key; may be repeated: any of them will do",
    )


def run(args: argparse.Namespace) -> None:
    keys = None if args.public_key is None else trusted(map(load_public_key, args.public_key))
    out = Path(args.out)
    with unpacking.opened(Path(args.file), keys) as archive:
        unpacking.unpack(archive, out, options.bytes_bar("unpacking", archive.bytes))
    done = archive.result
    signed = "signature not checked (--public-key)" if done.signer is None else f"signed by {done.signer}"
    engines = f", engines for {done.engines} machine(s)" if done.engines else ""
    print(f"{out}: {done.files} files as in the manifest{engines}, {signed}")
