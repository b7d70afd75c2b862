"""`manifest.json.sig` and `engine.json.sig`: 64 bytes, Ed25519 over the very bytes of the file beside them.

Any tool that knows Ed25519 can make or check one (docs/trust.md). `Trusted` is the check that the contract's readers
take: it sees a document's bytes before they are parsed. Which files a document vouches for is the contract's business.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from hired_edge.engine_record import RECORD_NAME
from hired_edge.errors import BundleError, InputError
from hired_edge.filenames import signature_name
from hired_edge.hashing import readable
from hired_edge.layout import left_by
from hired_runtime.trust.keys import PrivateKey, PublicKey, load_public_key
from hired_runtime.whole import whole

SIGNATURE_BYTES = 64


class Trusted:
    """The keys whose signatures count; any of them will do. A `hired_edge.hashing.CheckDocument`."""

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        assert keys
        self.keys = tuple(keys)

    def __call__(self, path: Path, document: bytes) -> None:
        """Raises BundleError where `document`, which was read from `path`, is signed by none of the keys."""
        self.signer(path, document)

    def signer(self, path: Path, document: bytes) -> PublicKey:
        """Whose signature lies beside `path`.

        Raises:
            BundleError: there is none, it is no signature, or it is none of the keys', of these bytes.
        """
        signature = read_signature(path)
        if signature is None:
            _refuse(f"{signature_path(path)} is missing", f"the signature of {self}", _sign_command(path))
        return self.signer_of(document, signature, path)

    def signer_of(self, document: bytes, signature: bytes, path: Path) -> PublicKey:
        """As `signer`, of a signature that was read already."""
        for key in self.keys:
            if key.has_signed(document, signature):
                return key
        return _refuse(
            f"{signature_path(path)} is not the signature of {path.name} by {self}",
            "one by a key that is trusted here",
            "get the file and its signature again, or trust another key if you know whose it is",
        )

    def __str__(self) -> str:
        names = [str(key) for key in self.keys[:3]]
        return " or ".join(names) + (f" or {len(self.keys) - 3} more" if len(self.keys) > 3 else "")


def trusted(keys: Iterable[PublicKey | str | os.PathLike[str]] | None) -> Trusted | None:
    """What `public_keys` of `hired_runtime.open` means: None = signatures are not asked for.

    Args:
        keys: read already, or paths of files.

    Raises:
        InputError: none at all, or a file that holds no Ed25519 public key.
    """
    if keys is None:
        return None
    read = [key if isinstance(key, PublicKey) else load_public_key(key) for key in keys]
    if not read:
        raise InputError("no public key", expected="one or more, or None", fix="pass the keys whose signatures count")
    return Trusted(read)


def signature_path(path: Path) -> Path:
    return path.with_name(signature_name(path.name))


def read_signature(path: Path) -> bytes | None:
    """The signature beside a document; None where there is none.

    Raises:
        BundleError: unreadable, a link, or not 64 bytes.
    """
    beside = signature_path(path)
    with readable(beside):
        try:
            mode = beside.lstat().st_mode
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "not a file"
            _refuse(f"{beside} is {kind}", "a file", "copy it again")
        with beside.open("rb") as file:
            return check_length(file.read(SIGNATURE_BYTES + 1), beside)


def check_length(signature: bytes, where: object) -> bytes:
    """Raises BundleError if it cannot be a signature."""
    if len(signature) != SIGNATURE_BYTES:
        got = "more" if len(signature) > SIGNATURE_BYTES else len(signature)
        _refuse(f"{where} has {got} bytes", f"{SIGNATURE_BYTES}, an Ed25519 signature", "copy it again")
    return signature


def write_signature(path: Path, document: bytes, key: PrivateKey) -> str:
    """Signs a document and puts the signature beside it, whole or not at all.

    Args:
        path: of the document.
        document: its bytes, as they were checked.

    Returns:
        What became of an earlier signature: "written", "replaced", or "unchanged".

    Raises:
        BundleError: it cannot be written.
    """
    beside, signature = signature_path(path), key.sign(document)
    try:
        for left in path.parent.iterdir():
            if left_by(left.name) == path.name:  # of a signing that was killed
                left.unlink()
        there = os.path.lexists(beside)
        if there and _holds(beside, signature):
            return "unchanged"
        with whole(beside) as partial, partial.open("wb") as file:
            file.write(signature)
    except OSError as error:
        _refuse(
            f"{error.filename or beside} cannot be written ({error.strerror})",
            "room and the right to write there",
            "check its permissions and the disk",
        )
    return "replaced" if there else "written"


def _holds(path: Path, signature: bytes) -> bool:
    try:
        return read_signature(path.with_suffix("")) == signature
    except BundleError:  # it is no signature at all
        return False


def _sign_command(path: Path) -> str:
    engines, bundle = (True, path.parents[2]) if path.name == RECORD_NAME else (False, path.parent)
    return f"sign it: hired-edge sign {shlex.quote(str(bundle))}{' --engines' if engines else ''} --key KEY"


def _refuse(got: str, expected: str, fix: str) -> NoReturn:
    raise BundleError(got, expected=expected, fix=fix)
