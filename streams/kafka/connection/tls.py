"""Check the files that TLS needs: they are readable, hold the right content, and match each other.

The client loads them anew for every connection, and its error names neither the option nor the file.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
"""Options that name a file."""
_PEM: Final = "one in PEM form begins with -----BEGIN"


class TlsOptions(Protocol):
    """The options of TLS; None if one is not set."""

    @property
    def ssl_cafile(self) -> str | None: ...
    @property
    def ssl_certfile(self) -> str | None: ...
    @property
    def ssl_keyfile(self) -> str | None: ...
    @property
    def ssl_password(self) -> str | None: ...


def check_tls(options: TlsOptions) -> None:
    """Check the files of TLS.

    Args:
        options: The options that name them.

    Raises:
        ValueError: A file cannot be used. The message names the option and the file.
    """
    if options.ssl_cafile is not None:
        _check_validity("ssl_cafile", options.ssl_cafile, _certificates("ssl_cafile", options.ssl_cafile))
        _load("ssl_cafile", options.ssl_cafile)
    if options.ssl_certfile is not None:
        _check_pair(options.ssl_certfile, options.ssl_keyfile, options.ssl_password)
    elif options.ssl_keyfile is not None:
        raise ValueError(f"ssl_keyfile {options.ssl_keyfile} has no effect without ssl_certfile, the certificate of this key")


def _check_pair(certfile: str, keyfile: str | None, password: str | None) -> None:
    certificates = _certificates("ssl_certfile", certfile)
    _check_validity("ssl_certfile", certfile, certificates[:1])
    option, path = ("ssl_keyfile", keyfile) if keyfile is not None else ("ssl_certfile", certfile)
    content = _bytes(option, path)
    if b"PRIVATE KEY-----" not in content:
        more = "" if keyfile is not None else "; name the file of the key as ssl_keyfile"
        raise ValueError(f"{option} {path}: no private key in it ({_PEM}){more}")
    _check_key(option, path, content, certificates[0], certfile, password)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:  # a missing password must not be asked for on the terminal
        context.load_cert_chain(certfile, keyfile, password or "")
    except (OSError, ValueError) as error:
        raise ValueError(f"ssl_certfile {certfile} and {option} {path} cannot be used together: {error}") from error


def _check_key(option: str, path: str, content: bytes, certificate: Certificate, certfile: str, password: str | None) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    begin = content.index(b"-----BEGIN", max(0, content.rindex(b"-----BEGIN", 0, content.index(b"PRIVATE KEY-----"))))
    encrypted = b"ENCRYPTED" in content[begin:]
    if encrypted and not password:
        raise ValueError(f"{option} {path}: the key is encrypted; give its password as ssl_password")
    try:
        key = load_pem_private_key(content[begin:], password.encode() if password and encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise ValueError(f"{option} {path}: ssl_password does not open the key in it") from error
        raise ValueError(f"{option} {path}: the private key in it cannot be read ({error})") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ValueError(f"{option} {path}: the key does not belong to the certificate in ssl_certfile {certfile}")


def _check_validity(option: str, path: str, certificates: list[Certificate]) -> None:
    """Check that any certificate is still valid: an expired authority beside a valid one does no harm."""
    last = max(certificate.not_valid_after_utc for certificate in certificates)
    if last.timestamp() < time.time():
        raise ValueError(f"{option} {path}: expired on {last:%Y-%m-%d %H:%M} UTC; renew it (or set this machine's clock, if it is wrong)")


def _certificates(option: str, path: str) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(_bytes(option, path))
    except ValueError as error:
        if str(error).startswith(option):
            raise
        raise ValueError(f"{option} {path}: no certificate in it ({_PEM} CERTIFICATE-----)") from error


def _load(option: str, path: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"{option} {path}: cannot be used ({error})") from error


def _bytes(option: str, path: str) -> bytes:
    if not Path(path).exists():
        raise ValueError(f"{option}: there is no file {path}")
    if not Path(path).is_file():
        raise ValueError(f"{option} {path}: is not a file; name a file in PEM form")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{option} {path}: cannot be read ({error.strerror}); mend its owner and permissions for this user") from error
