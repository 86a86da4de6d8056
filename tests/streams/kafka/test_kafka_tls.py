"""Files for TLS: each that no connection could be made with is refused with its option, its path and what to do."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from daemon.config.load import load
from streams.kafka.connection.options import KafkaOptions


@dataclass(frozen=True)
class Files:
    """A certificate that is valid, one that has expired, and keys: of the certificate, encrypted with "open", and of another one."""

    cert: Path
    expired: Path
    key: Path
    locked: Path
    other: Path
    both: Path
    junk: Path
    folder: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A folder of them."""
    folder = tmp_path_factory.mktemp("tls")
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def write(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def private(of: Any, password: bytes | None = None) -> bytes:
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return bytes(of.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))

    return Files(
        cert=write("cert.pem", certificate(key, ends_in_days=1)),
        expired=write("expired.pem", certificate(key, ends_in_days=-1)),
        key=write("key.pem", private(key)),
        locked=write("locked.pem", private(key, b"open")),
        other=write("other.pem", private(other)),
        both=write("both.pem", certificate(key, ends_in_days=1) + private(key)),
        junk=write("junk.pem", b"-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"),
        folder=folder,
    )


def certificate(key: Any, ends_in_days: int) -> bytes:
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker.example.net")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now - dt.timedelta(days=9)).not_valid_after(now + dt.timedelta(days=ends_in_days))
    return bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


USABLE: dict[str, Callable[[Files], dict[str, Any]]] = {
    "an authority": lambda f: {"ssl_cafile": f.cert},
    "a certificate and its key": lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.key},
    "both in one file": lambda f: {"ssl_certfile": f.both},
    "a key and its password": lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.locked, "ssl_password": "open"},
    "a password that is not needed": lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.key, "ssl_password": "open"},
}

REFUSED: dict[str, tuple[Callable[[Files], dict[str, Any]], str]] = {
    "an authority that is not there": (lambda f: {"ssl_cafile": f.folder / "none"}, "ssl_cafile: there is no file {folder}/none"),
    "a folder": (lambda f: {"ssl_cafile": f.folder}, "ssl_cafile {folder}: is not a file"),
    "an authority without a certificate": (lambda f: {"ssl_cafile": f.key}, "ssl_cafile {folder}/key.pem: no certificate in it"),
    "an authority that is damaged": (lambda f: {"ssl_cafile": f.junk}, "ssl_cafile {folder}/junk.pem: no certificate in it"),
    "an authority that has expired": (lambda f: {"ssl_cafile": f.expired}, "ssl_cafile {folder}/expired.pem: expired on "),
    "a certificate that has expired": (
        lambda f: {"ssl_certfile": f.expired, "ssl_keyfile": f.key},
        "ssl_certfile {folder}/expired.pem: expired on ",
    ),
    "a certificate without a key": (
        lambda f: {"ssl_certfile": f.cert},
        "ssl_certfile {folder}/cert.pem: no private key in it (one in PEM form begins with -----BEGIN); name the file of the key",
    ),
    "a key that is a certificate": (
        lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.cert},
        "ssl_keyfile {folder}/cert.pem: no private key in it",
    ),
    "a key of another certificate": (
        lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.other},
        "ssl_keyfile {folder}/other.pem: the key does not belong to the certificate in ssl_certfile {folder}/cert.pem",
    ),
    "a key without its password": (
        lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.locked},
        "ssl_keyfile {folder}/locked.pem: the key is encrypted; give its password as ssl_password",
    ),
    "a wrong password": (
        lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.locked, "ssl_password": "shut"},
        "ssl_keyfile {folder}/locked.pem: ssl_password does not open the key in it",
    ),
    "a password of digits": (
        lambda f: {"ssl_certfile": f.cert, "ssl_keyfile": f.locked, "ssl_password": 1234},
        "ssl_password is a number: write it in quotes",
    ),
    "a key without a certificate": (lambda f: {"ssl_keyfile": f.key}, "ssl_keyfile {folder}/key.pem has no effect without ssl_certfile"),
}


def options(values: dict[str, Any]) -> KafkaOptions:
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return KafkaOptions.from_mapping({"bootstrap_servers": "k", "security_protocol": "SSL", **texts})


@pytest.mark.parametrize("case", USABLE)
def test_files_that_fit_are_taken(files: Files, case: str) -> None:
    """Files that the client can load are not refused."""
    assert options(USABLE[case](files)).security_protocol == "SSL"


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_named(files: Files, case: str) -> None:
    """Each is refused before anything connects, with the option and the file."""
    values, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message.format(folder=files.folder))):
        options(values(files))


def test_a_file_that_this_user_may_not_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and of no use: the user and its permissions are what to mend. (Root may read anything: the refusal is put in.)"""
    path = files.cert
    if os.geteuid() == 0:
        monkeypatch.setattr(Path, "read_bytes", _refuse)
    else:
        path.chmod(0)
    try:
        with pytest.raises(ValueError, match=rf"ssl_cafile {path}: cannot be read \(Permission denied\); mend its owner"):
            options({"ssl_cafile": path})
    finally:
        path.chmod(0o600)


def _refuse(_: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


def test_check_config_refuses_them_with_the_section(files: Files, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    """The command that the advice names reports it, with exit code 3, as `run` does."""
    config = tmp_path / "c.toml"
    config.write_text(f'[kafka.options]\nsecurity_protocol = "SSL"\nssl_cafile = "{files.key}"\n')
    code, _, words = cli("check-config", "-c", config)
    assert code == 3
    assert f"kafka.options.ssl_cafile {files.key}: no certificate in it" in words.replace("\n", "")


def test_a_password_of_digits_in_a_variable_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable has no quotes to leave out: its digits are the password, zeros in front as well; and numbers are numbers."""
    values = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN", "SASL_PLAIN_USERNAME": "7", "SASL_PLAIN_PASSWORD": "0012"}
    for name, value in (values | {"RECEIVE_BUFFER_BYTES": "65536"}).items():
        monkeypatch.setenv(f"DWCP_KAFKA__OPTIONS__{name}", value)
    made = load(None).kafka.client_options()
    assert (made.sasl_plain_username, made.sasl_plain_password) == ("7", "0012")
    assert made.consumer_config()["receive_buffer_bytes"] == 65536
