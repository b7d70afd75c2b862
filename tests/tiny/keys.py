"""Ed25519 keys in files, made by the programs that people make them with, or by the library where those are not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

PASSPHRASE = "four words of grass"
HAS_OPENSSL, HAS_SSH_KEYGEN = (shutil.which(name) is not None for name in ("openssl", "ssh-keygen"))


def pem(folder: Path, name: str = "key", *, encrypted: bool = False) -> tuple[Path, Path]:
    """A private key and its public half, PEM, by openssl."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    if HAS_OPENSSL:
        how = ("-aes256", "-pass", f"pass:{PASSPHRASE}") if encrypted else ()
        run("openssl", "genpkey", "-algorithm", "ed25519", *how, "-out", private)
        into = ("-passin", f"pass:{PASSPHRASE}") if encrypted else ()
        run("openssl", "pkey", "-in", private, *into, "-pubout", "-out", public)
    else:
        write(Ed25519PrivateKey.generate(), private, public, PrivateFormat.PKCS8, encrypted)
    private.chmod(0o600)
    return private, public


def openssh(folder: Path, name: str = "id", *, encrypted: bool = False) -> tuple[Path, Path]:
    """A private key and its public half, OpenSSH's formats, by ssh-keygen."""
    private, public = folder / name, folder / f"{name}.pub"
    if HAS_SSH_KEYGEN:
        passphrase = PASSPHRASE if encrypted else ""
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "somebody@board", "-f", private)
    else:
        write(Ed25519PrivateKey.generate(), private, public, PrivateFormat.OpenSSH, encrypted)
    private.chmod(0o600)
    return private, public


def write(key: Ed25519PrivateKey, private: Path, public: Path, form: PrivateFormat, encrypted: bool) -> None:
    how: KeySerializationEncryption = BestAvailableEncryption(PASSPHRASE.encode()) if encrypted else NoEncryption()
    private.write_bytes(key.private_bytes(Encoding.PEM, form, how))
    if form is PrivateFormat.OpenSSH:
        content = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    else:
        content = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(content)


def run(*command: object) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
