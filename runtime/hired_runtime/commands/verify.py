"""hired-edge verify: check a bundle's files, engines and signatures, then replay its golden inputs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from hired_edge.bundle import Bundle
from hired_edge.engine_record import RECORD_NAME
from hired_edge.errors import BundleError
from hired_edge.manifest import MANIFEST_NAME
from hired_runtime import backends, golden
from hired_runtime.commands import options
from hired_runtime.trust import engines
from hired_runtime.trust.keys import load_public_key
from hired_runtime.trust.signatures import Trusted, read_signature, trusted

help = "check a bundle's files and signatures, then replay its golden inputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that hired-edge export wrote")
    parser.add_argument(
        "--public-key",
        action="append",
        metavar="PUBLIC-KEY",
        help="the manifest must be signed by this key, and engines that are run; may be repeated: any of them will do",
    )
    options.add_backend(parser)
    parser.add_argument("--files-only", action="store_true", help="check hashes and signatures only; run nothing")


def run(args: argparse.Namespace) -> None:
    keys = None if args.public_key is None else tuple(map(load_public_key, args.public_key))
    documents: dict[Path, bytes] = {}
    required = trusted(keys)

    def keep(path: Path, document: bytes) -> None:
        if required is not None and path.name == MANIFEST_NAME:  # of engines, it is told
            required(path, document)
        documents[path] = document

    bundle = Bundle.open(args.bundle, on_bytes=options.verification_bar(args.bundle, keys), check=keep)
    print(f"files   {len(bundle.manifest.files)} as in the manifest")
    path = bundle.root / MANIFEST_NAME
    _print_signed(path, MANIFEST_NAME, documents[path], required)
    found = engines.in_bundle(bundle)
    show = options.bytes_bar("verifying", sum(each.bytes for each in found))
    for each in found:
        engines.check_files(each, bundle, show)
        print(f"engines {each.folder.name}: {len(each.record.engines)} as in {RECORD_NAME}")
        _print_signed(each.path, f"{each.folder.name}/{RECORD_NAME}", documents[each.path], required)
    if args.files_only:
        return
    bundle = replace(bundle, check=required)
    backend = backends.load(backends.choose(bundle.root, args.backend), bundle, golden.limits(bundle.manifest))
    for result in golden.replay(bundle, backend):
        print(f"golden  {result.piece}: largest error {result.error:.1e}, tolerance {result.tolerance:.1e}")
    print(f"engine  {backend.name}")


def _print_signed(path: Path, name: str, document: bytes, keys: Trusted | None) -> None:
    """By whom; or that nobody has. Nothing where there is no signature and nobody asks for one."""
    signature = read_signature(path)
    if keys is None:
        if signature is not None:
            print(f"signed  {name}: not checked (--public-key)")
        return
    words = "no signature"
    if signature is not None:
        try:
            words = f"by {keys.signer_of(document, signature, path)}"
        except BundleError:
            words = "by none of these keys"
    print(f"signed  {name}: {words}")
