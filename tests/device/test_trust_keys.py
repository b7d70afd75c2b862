"""Keys as openssl and ssh-keygen write them, and everything that is none."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge.errors import HiredEdgeError, InputError
from hired_runtime.trust.keys import PASSPHRASE_VARIABLE, load_private_key, load_public_key
from tests.tiny import keys
from tests.tiny.processes import PATIENCE_S
from tests.tiny.terminals import OnTerminal

KINDS = {"PEM": keys.pem, "OpenSSH": keys.openssh}
RFC_8032 = {  # section 7.1, tests 1 and 2
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
}


def refusal(load: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_both_halves_are_of_one_key(
    make: Callable[..., tuple[Path, Path]], encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = make(tmp_path, encrypted=encrypted)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, keys.PASSPHRASE)
    key, half = load_private_key(private), load_public_key(public)
    assert key.public.raw == half.raw
    assert half.has_signed(b"document", key.sign(b"document"))
    assert not half.has_signed(b"Document", key.sign(b"document"))


@pytest.mark.parametrize("seed", RFC_8032)
def test_signatures_are_those_of_rfc_8032(seed: str, tmp_path: Path) -> None:
    public, message, signature = map(bytes.fromhex, RFC_8032[seed])
    der = bytes.fromhex("302e020100300506032b657004220420") + bytes.fromhex(seed)  # RFC 8410, section 7
    text = base64.encodebytes(der)
    (tmp_path / "key").write_bytes(b"-----BEGIN PRIVATE KEY-----\n" + text + b"-----END PRIVATE KEY-----\n")
    (tmp_path / "key").chmod(0o600)
    key = load_private_key(tmp_path / "key")
    assert key.public.raw == public
    assert key.sign(message) == signature
    assert key.public.has_signed(message, signature)


def test_fingerprints_are_ssh_keygens(tmp_path: Path) -> None:
    _, public = keys.openssh(tmp_path)
    if keys.HAS_SSH_KEYGEN:
        assert load_public_key(public).fingerprint in keys.run("ssh-keygen", "-l", "-f", public).split()


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_wrong_passphrase_and_none_at_all(
    make: Callable[..., tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = make(tmp_path, encrypted=True)
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert PASSPHRASE_VARIABLE in refusal(load_private_key, private)
    for wrong in ("five", ""):
        monkeypatch.setenv(PASSPHRASE_VARIABLE, wrong)
        assert "does not open with this passphrase" in refusal(load_private_key, private)


def test_a_wrong_passphrase_of_an_authenticated_cipher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if keys.HAS_SSH_KEYGEN:
        path = tmp_path / "gcm"
        keys.run("ssh-keygen", "-q", "-t", "ed25519", "-Z", "aes256-gcm@openssh.com", "-N", keys.PASSPHRASE, "-f", path)
        monkeypatch.setenv(PASSPHRASE_VARIABLE, "five")
        assert "does not open with this passphrase" in refusal(load_private_key, path)
        monkeypatch.setenv(PASSPHRASE_VARIABLE, keys.PASSPHRASE)
        load_private_key(path)


def test_a_passphrase_is_asked_for_on_a_terminal_and_not_shown(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    private, public = keys.pem(tmp_path, encrypted=True)
    with OnTerminal("sign", bundle, "--key", private) as terminal:
        terminal.until(f"Passphrase of {private}: ")
        terminal.send(f"{keys.PASSPHRASE}\n")
        terminal.until(load_public_key(public).fingerprint)
        assert keys.PASSPHRASE not in terminal.shown


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_private_key_that_others_may_use_is_refused(mode: int, tmp_path: Path) -> None:
    private, _ = keys.pem(tmp_path)
    private.chmod(mode)
    line = refusal(load_private_key, private)
    assert f"mode {mode:04o}" in line
    assert line.endswith(f"run: chmod 600 {private}")
    private.chmod(0o400)
    load_private_key(private)


def test_keys_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    others = {
        "RSA": rsa.generate_private_key(65537, 2048),
        "EC": ec.generate_private_key(ec.SECP256R1()),
        "Ed448": ed448.Ed448PrivateKey.generate(),
    }
    for name, key in others.items():
        private, public = tmp_path / name, tmp_path / f"{name}.pub"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        private.chmod(0o600)
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        assert f"is an {name} key; expected an Ed25519 private key" in refusal(load_private_key, private)
        assert f"is an {name} key; expected an Ed25519 public key" in refusal(load_public_key, public)
    line = others["RSA"].public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (tmp_path / "line").write_bytes(line)
    assert "begins with 'ssh-rsa'" in refusal(load_public_key, tmp_path / "line")


def test_a_private_key_for_a_public_one_is_refused_with_the_command(tmp_path: Path) -> None:
    for make in KINDS.values():
        private, public = make(tmp_path)
        raw = load_public_key(public).raw
        _, _, command = refusal(load_public_key, private).partition("run: ")
        assert command.endswith(f" {private}.pub")
        if shutil.which(command.split()[0]) is not None:
            subprocess.run(["sh", "-c", command], check=True)
            assert load_public_key(f"{private}.pub").raw == raw


SPOILED = {
    "nothing": b"",
    "words": b"not a key at all\n",
    "binary": bytes(range(256)),
    "half a key": b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n",
    "an empty PEM": b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
    "another PEM": b"-----BEGIN CERTIFICATE-----\nMCowBQYDK2VwAyEA\n-----END CERTIFICATE-----\n",
    "a security key": b"sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t me\n",
    "a line cut short": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me\n",
    "too much": b"ssh-ed25519 " + b"A" * 2**17,
}


@pytest.mark.parametrize("content", SPOILED.values(), ids=SPOILED)
def test_what_is_no_key_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    for load in (load_public_key, load_private_key):
        line = refusal(load, path)
        assert line.startswith(f"{path} ")
        assert line.isprintable()


def test_several_keys_in_one_file_are_refused(tmp_path: Path) -> None:
    for make in KINDS.values():
        public = make(tmp_path)[1]
        held = public.read_bytes()
        for more in (held, b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI another\n"):
            public.write_bytes(held + more)
            assert "several keys" in refusal(load_public_key, public)


def test_a_missing_file_a_folder_and_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("none", "cannot be read (No such file"), (".", "is not a file"), ("pipe", "is not a file")):
        for load in (load_public_key, load_private_key):
            assert words in refusal(load, tmp_path / name)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, Callable[[Path], object]]]:
    """The content of a key of each kind, and what reads it."""
    found: list[tuple[bytes, Callable[[Path], object]]] = []
    for make in KINDS.values():
        private, public = make(tmp_path_factory.mktemp("originals"))
        found += [(private.read_bytes(), load_private_key), (public.read_bytes(), load_public_key)]
    return found


@settings(deadline=None)
@given(data=st.data())
def test_whatever_becomes_of_a_key_the_only_errors_are_our_own(
    data: st.DataObject,
    originals: list[tuple[bytes, Callable[[Path], object]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    original, load = data.draw(st.sampled_from(originals))
    path, content = tmp_path_factory.getbasetemp() / "spoiled", bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)
    path.chmod(0o600)
    with contextlib.suppress(HiredEdgeError):
        load(path)


@pytest.mark.parametrize(("module", "extra"), [("cryptography", "sign"), ("bcrypt", "sign")])
def test_what_is_not_installed_is_named_with_the_command(module: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    private, _ = keys.openssh(tmp_path / "folder", encrypted=True)
    block = f"import sys; sys.modules[{module!r}] = None; from hired_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", block, "sign", "bundle", "--key", str(private)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), PASSPHRASE_VARIABLE: keys.PASSPHRASE},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.endswith(f"run: pip install 'hired-edge[{extra}]'")
