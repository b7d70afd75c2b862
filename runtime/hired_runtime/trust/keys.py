"""Ed25519 keys from the files that OpenSSL and OpenSSH write (PEM and OpenSSH; encrypted ones too).

The `cryptography` package (the `sign` extra) reads and uses them; nothing is computed here. A private key that others
may read is refused, as ssh does. Passphrases come from a variable or a terminal. Knows nothing of bundles.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import os
import shlex
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hired_edge.errors import InputError, MissingExtraError
from hired_edge.strict import show

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PASSPHRASE_VARIABLE = "HIRED_EDGE_KEY_PASSPHRASE"
MAX_KEY_BYTES = 2**16
_MAKE = "make one with: openssl genpkey -algorithm ed25519"
_PEM, _OPENSSH = b"-----BEGIN ", b"-----BEGIN OPENSSH PRIVATE KEY-----"
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_SSH_ED25519 = b"ssh-ed25519"


@dataclass(frozen=True)
class PublicKey:
    """Who may have signed.

    Args:
        name: of the file that it was read from.
        raw: 32 bytes.
    """

    name: str
    raw: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: "SHA256:..."."""
        blob = b"".join(len(part).to_bytes(4, "big") + part for part in (_SSH_ED25519, self.raw))
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"

    def has_signed(self, document: bytes, signature: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's, of these bytes."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, document)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """Signs."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(name, key.public_key().public_bytes_raw())

    def sign(self, document: bytes) -> bytes:
        """64 bytes; the same for the same document."""
        return self._key.sign(document)


def load_public_key(path: str | os.PathLike[str]) -> PublicKey:
    """Reads a public key: PEM ("BEGIN PUBLIC KEY") or OpenSSH ("ssh-ed25519 ...").

    Raises:
        InputError: no such file, a private key, several keys, or no Ed25519 key.
        ModuleNotFoundError: `cryptography` is not installed.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    data, _ = _read(Path(path))
    lines = [line for line in data.splitlines() if line.strip()]
    if b"PRIVATE KEY-----" in data:
        quoted = shlex.quote(os.fspath(path))
        made_by = f"openssl pkey -in {quoted} -pubout -out" if _OPENSSH not in data else f"ssh-keygen -y -f {quoted} >"
        _refuse(path, "is a private key", "a public key", f"run: {made_by} {quoted}.pub")
    is_pem = data.lstrip().startswith(_PEM)
    if data.count(_PEM) > 1 or (len(lines) > 1 and not (is_pem and lines[-1].startswith(b"-----END "))):
        _refuse(path, "holds several keys or something else", "one public key", "pass each in a file of its own")
    word = data.split(maxsplit=1)[:1]
    if not is_pem and word != [_SSH_ED25519]:
        kind = show(word[0][:40].decode(errors="replace")) if word else "nothing"
        _refuse(path, f"begins with {kind}", "an Ed25519 public key, PEM or OpenSSH", "pass another file")
    try:
        key = load_pem_public_key(data) if is_pem else load_ssh_public_key(lines[0])
    except (ValueError, TypeError, UnsupportedAlgorithm):
        _refuse(path, "cannot be read as a public key", "an Ed25519 public key, PEM or OpenSSH", "copy it again")
    if not isinstance(key, Ed25519PublicKey):
        _refuse(path, f"is {_kind(key)}", "an Ed25519 public key", f"pass another, or {_MAKE}")
    return PublicKey(Path(path).name, key.public_bytes_raw())


def load_private_key(path: str | os.PathLike[str]) -> PrivateKey:
    """Reads a private key, PEM (PKCS #8) or OpenSSH, and asks for its passphrase if it has one.

    Raises:
        InputError: no such file, readable by others, no Ed25519 key, a wrong passphrase, or nobody to ask for it.
        ModuleNotFoundError: `cryptography` is not installed.
        MissingExtraError: `bcrypt` is not, which encrypted OpenSSH keys need.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data, status = _read(Path(path))
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        fix = f"run: chmod 600 {shlex.quote(os.fspath(path))}"
        _refuse(path, f"is open to others (mode {stat.S_IMODE(status.st_mode):04o})", "a key of yours alone", fix)
    try:
        key = _parse_private(path, data, None)
    except TypeError:
        try:
            key = _parse_private(path, data, _passphrase(path))
        except (TypeError, ValueError):
            fix = f"type it again, or set another {PASSPHRASE_VARIABLE}"
            _refuse(path, "does not open with this passphrase", "the passphrase that it was encrypted with", fix)
    except ValueError:
        _refuse(path, "cannot be read as a private key", "an Ed25519 private key, PEM or OpenSSH", f"{_MAKE} -out KEY")
    if not isinstance(key, Ed25519PrivateKey):
        _refuse(path, f"is {_kind(key)}", "an Ed25519 private key", f"{_MAKE} -out KEY")
    return PrivateKey(Path(path).name, key)


def _parse_private(path: str | os.PathLike[str], data: bytes, passphrase: bytes | None) -> Any:
    """Raises TypeError if it takes a passphrase, ValueError if that is wrong, or if it is no key."""
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    try:
        if _OPENSSH in data:
            if passphrase is None and _is_encrypted(data):
                raise TypeError  # as the other reader does; this one has not always
            return load_ssh_private_key(data, passphrase)
        return load_pem_private_key(data, passphrase)
    except InvalidTag:  # AES-GCM's way of saying that it is another passphrase
        raise ValueError from None
    except UnsupportedAlgorithm as error:
        if "bcrypt" in str(error):
            raise MissingExtraError(
                "no module named bcrypt",
                expected="the 'sign' extra, for an encrypted OpenSSH key",
                fix="run: pip install 'hired-edge[sign]'",
            ) from None
        _refuse(path, f"cannot be used ({error})", "an Ed25519 private key", f"{_MAKE} -out KEY")


def _is_encrypted(data: bytes) -> bool:
    """Whether an OpenSSH key names a cipher (openssh-portable, PROTOCOL.key)."""
    inside = data.partition(_OPENSSH)[2].partition(b"-----END")[0]
    try:
        body = base64.b64decode(inside)
    except ValueError:
        return False
    return body.startswith(_OPENSSH_MAGIC) and not body.startswith(_OPENSSH_MAGIC + b"\0\0\0\4none")


def _passphrase(path: str | os.PathLike[str]) -> bytes:
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is not None:
        return given.encode(errors="surrogateescape")
    if not sys.stdin.isatty():
        fix = f"set {PASSPHRASE_VARIABLE}, or run this on a terminal"
        _refuse(path, "is encrypted and there is no terminal", "its passphrase", fix)
    try:
        return getpass.getpass(f"Passphrase of {path}: ").encode()
    except EOFError:
        _refuse(path, "is encrypted and no passphrase was typed", "its passphrase", "type it")


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """The content, and the status of the file that it was read from."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # no waiting for a pipe's other end
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                _refuse(path, "is not a file", "a key in a file", "pass another path")
            data = os.read(handle, MAX_KEY_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as error:
        _refuse(path, f"cannot be read ({error.strerror})", "a key in a file", "check the path")
    if len(data) > MAX_KEY_BYTES:
        _refuse(path, f"is larger than {MAX_KEY_BYTES} bytes", "a key", "pass another file")
    return data, status


def _kind(key: object) -> str:
    """ "an RSA key", from the name of its class."""
    name = type(key).__name__.lstrip("_").removesuffix("PublicKey").removesuffix("PrivateKey")
    return f"{'an' if name[:1] in 'AEIORX' else 'a'} {name} key"


def _refuse(path: str | os.PathLike[str], got: str, expected: str, fix: str) -> NoReturn:
    raise InputError(f"{os.fspath(path)} {got}", expected=expected, fix=fix)
