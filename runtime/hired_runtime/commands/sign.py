"""hired-edge sign: an Ed25519 signature over a bundle's manifest, or over the records of its engines."""

from __future__ import annotations

import argparse
from pathlib import Path

from hired_edge.bundle import Bundle
from hired_edge.errors import InputError
from hired_edge.manifest import MANIFEST_NAME
from hired_runtime.commands import options
from hired_runtime.trust import engines
from hired_runtime.trust.keys import PrivateKey, load_private_key
from hired_runtime.trust.signatures import signature_path, trusted, write_signature

help = "sign a bundle, or the engines that a board built into it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_bundle(parser)
    parser.add_argument("--key", required=True, metavar="KEY", help="an Ed25519 private key, PEM or OpenSSH")
    parser.add_argument("--engines", action="store_true", help="sign what boards built, instead of the manifest")


def run(args: argparse.Namespace) -> None:
    key, keys = load_private_key(args.key), options.public_keys(args)
    documents: dict[Path, bytes] = {}
    required = trusted(keys)

    def keep(path: Path, document: bytes) -> None:
        if required is not None and path.name == MANIFEST_NAME:  # engines are what is to be signed
            required(path, document)
        documents[path] = document

    bundle = Bundle.open(args.bundle, on_bytes=options.verification_bar(args.bundle, keys), check=keep)
    print(f"files     {len(bundle.manifest.files)} as in the manifest")
    if not args.engines:
        path = bundle.root / MANIFEST_NAME
        print_signed(path, documents[path], key)
        return
    found = engines.in_bundle(bundle)
    if not found:
        raise InputError(
            f"{bundle.root} has no engines",
            expected="what hired-edge build wrote",
            fix="leave --engines out",
        )
    show = options.bytes_bar("verifying", sum(each.bytes for each in found))
    for each in found:
        engines.check(each, bundle, show)
        print(f"engines   {each.folder.name}: {len(each.record.engines)} as in their record")
    for each in found:
        print_signed(each.path, documents[each.path], key)


def print_signed(path: Path, document: bytes, key: PrivateKey) -> None:
    """Signs, and says so in a line."""
    done = write_signature(path, document, key)
    print(f"{'signed' if done == 'written' else done:<9} {signature_path(path)} by {key.public}")
