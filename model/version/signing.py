"""Ed25519 signatures of a version's manifest (RFC 8032), and the two key files: PEM, as OpenSSL and Go's crypto/x509 read them."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from model.registry.plain_file import OF_PLAIN_FILE, open_plain

SIGNING_KEY_NAME: Final = "dwcp-signing-key.pem"
VERIFY_KEY_NAME: Final = "dwcp-verify-key.pem"
SIGNATURE_BYTES: Final = 64
MOST_KEY_BYTES: Final = 64 * 2**10
"""Limit of a key file, bytes: enough to recognise any other kind of key, and too little for an arbitrary wrong file."""

_MAKE_ONE: Final = "make a pair with `dwcp-learner keys generate`"


class KeyFileError(ValueError):
    """A key file cannot be used. The message names the file, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Private key: whoever has it can publish."""

    _key: Ed25519PrivateKey

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Read a private key. Raise KeyFileError if the file is unreadable, encrypted, open to everybody, or not a private Ed25519 key."""
        content, mode = _read(path)
        if mode & stat.S_IRWXO:
            raise KeyFileError(f"{path} can be read or changed by every user: chmod 600 (or 640, with a group of the daemon's alone)")
        if b"PUBLIC KEY" in content:
            raise KeyFileError(f"{path} is a public key, which cannot sign; give the private one ({SIGNING_KEY_NAME})")
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except TypeError as error:
            remedy = f"write it without a passphrase: openssl pkey -in {path} -out KEY.pem"
            raise KeyFileError(f"{path} is encrypted, and a daemon has nobody to ask for the passphrase; {remedy}") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path} does not hold a private key in PEM form; {_MAKE_ONE}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(f"{path} is a key of another type ({_type(key)}), an Ed25519 key is needed; {_MAKE_ONE}")
        return cls(key)

    def sign(self, content: bytes) -> bytes:
        """Return the signature as the one line of a signature file: base64 of its 64 bytes, then a newline."""
        return base64.b64encode(self._key.sign(content)) + b"\n"

    def public(self) -> VerifyKey:
        return VerifyKey(self._key.public_key())


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """Public key: whoever has it can check what the private one has signed."""

    _key: Ed25519PublicKey

    @classmethod
    def read(cls, path: Path) -> VerifyKey:
        """Read a public key. Raise KeyFileError if the file is unreadable or does not hold a public Ed25519 key."""
        content, _ = _read(path)
        if b"PRIVATE KEY" in content:
            raise KeyFileError(f"{path} is a private key; give the public one ({VERIFY_KEY_NAME}), and keep the private one where it signs")
        try:
            key = serialization.load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path} does not hold a public key in PEM form; {_MAKE_ONE}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{path} is a key of another type ({_type(key)}), an Ed25519 key is needed; {_MAKE_ONE}")
        return cls(key)

    def problem(self, content: bytes, line: bytes) -> str | None:
        """Return why a signature file's line does not sign the content; None if it does. Never raises."""
        try:
            signature = base64.b64decode(line.removesuffix(b"\n"), validate=True)
        except (binascii.Error, ValueError):
            return "is not base64"
        if len(signature) != SIGNATURE_BYTES:
            return f"holds {len(signature)} bytes instead of {SIGNATURE_BYTES}"
        try:
            self._key.verify(signature, content)
        except InvalidSignature:
            return "does not fit: what it signs was changed, or another key has signed it"
        return None


def generate(folder: Path) -> tuple[Path, Path]:
    """Make a new pair of keys in the folder, the private one with mode 0600, and return the paths of both.

    Raises:
        KeyFileError: if one of the files is there already.
        OSError: if they cannot be written; half of a pair is never left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / SIGNING_KEY_NAME, folder / VERIFY_KEY_NAME
    key = Ed25519PrivateKey.generate()
    pem, no_passphrase = serialization.Encoding.PEM, serialization.NoEncryption()
    contents = (
        (private, 0o600, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_passphrase)),
        (public, 0o644, key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)),
    )
    made: list[Path] = []
    try:
        for path, mode, content in contents:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise KeyFileError(f"{error.filename} is there already, and is not replaced: name another folder with --folder") from error
        raise
    return private, public


def _read(path: Path) -> tuple[bytes, int]:
    """Return content and mode of a key file. A link is followed: a secret is often mounted as one."""
    try:
        with open_plain(path, MOST_KEY_BYTES, follow_link=True) as file:
            return file.read(MOST_KEY_BYTES), os.fstat(file.fileno()).st_mode
    except OSError as error:
        if error.errno in OF_PLAIN_FILE:
            raise KeyFileError(f"{path} {error.strerror}: that is not a key; {_MAKE_ONE}") from error
        raise KeyFileError(f"{path} cannot be read ({error.strerror}); check the path and its owner, or {_MAKE_ONE}") from error


def _type(key: object) -> str:
    return type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey").lstrip("_")
