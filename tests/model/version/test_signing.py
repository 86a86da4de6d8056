"""Signatures: what the daemon publishes is signed, and nothing that is not signed by the configured key is ever used."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config.keys import registry_with_keys
from daemon.config.load import Config, ConfigError
from daemon.ingest.journal import Journal
from daemon.ingest.live_model import Models
from daemon.operator.observer import Observer
from model.registry.versions import Registry, RegistryError
from model.version.documents import DocumentError
from model.version.manifest import MANIFEST_NAME, SIGNATURE_NAME, check_files, read_manifest, sign_manifest, verify
from model.version.metadata import core_name, metadata_name
from model.version.predictor import Predictor, PredictorError
from model.version.signing import SIGNING_KEY_NAME, VERIFY_KEY_NAME, KeyFileError, SigningKey, VerifyKey, generate
from testkit.versions import make_version

FIRST, SECOND, THIRD = "v20261123_101500", "v20261123_101501", "v20261124_000000"
Cli = Callable[..., tuple[int, str, str]]
PEM, PKCS8, PUBLIC = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[SigningKey, VerifyKey]) -> Path:
    """A version that is signed."""
    folder = make_version(tmp_path / FIRST, FIRST)
    sign_manifest(folder, keys[0])
    return folder


def test_a_signed_version_verifies(signed: Path, keys: tuple[SigningKey, VerifyKey]) -> None:
    """Its signature is one line over the exact bytes of the manifest; with or without a key it is sound."""
    line = (signed / SIGNATURE_NAME).read_bytes()
    assert line.endswith(b"\n")
    assert len(base64.b64decode(line[:-1], validate=True)) == 64
    assert verify(signed) == verify(signed, keys[1]) == []
    assert check_files(signed, keys[1]) == (read_manifest(signed), [])


def _reformat(folder: Path) -> None:
    document = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps(document))


def _rehash(folder: Path) -> None:
    """An intruder's change: another graph, and its hash in the manifest."""
    from model.version.manifest import write_manifest

    (folder / core_name(FIRST)).write_bytes(b"something else")
    write_manifest(folder, version=FIRST, parent=None, reason="test", created_at_s=1.0, verdict=None, libraries={})


def _signature(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / SIGNATURE_NAME).write_bytes(content)


def _link(folder: Path) -> None:
    (folder / SIGNATURE_NAME).rename(folder.parent / "elsewhere")
    (folder / SIGNATURE_NAME).symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    (folder / SIGNATURE_NAME).unlink()
    os.mkfifo(folder / SIGNATURE_NAME)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_reformat, "does not fit: what it signs was changed, or another key has signed it"),
        (_rehash, "does not fit"),
        (lambda f: (f / MANIFEST_NAME).open("ab").write(b" "), "does not fit"),
        (lambda f: (f / MANIFEST_NAME).write_text("{"), "does not fit"),
        (lambda f: (f / SIGNATURE_NAME).unlink(), "it is not signed (MANIFEST.json.sig is missing), and a verify key is configured"),
        (lambda f: os.truncate(f / SIGNATURE_NAME, 0), "holds 0 bytes instead of 64"),
        (lambda f: os.truncate(f / SIGNATURE_NAME, 40), "holds 30 bytes instead of 64"),
        (lambda f: os.truncate(f / SIGNATURE_NAME, 41), "is not base64"),
        (_signature(base64.b64encode(b"x" * 64)), "does not fit"),
        (_signature(b"\xff" * 88), "is not base64"),
        (_signature("ü".encode()), "is not base64"),
        (_link, "is not a regular file"),
        (_pipe, "is not a regular file"),
        (lambda f: (f / core_name(FIRST)).open("ab").write(b"x"), "bytes instead of"),
        (lambda f: (f / MANIFEST_NAME).unlink(), "MANIFEST.json is missing"),
    ],
)
def test_whatever_was_changed_is_found(
    signed: Path, keys: tuple[SigningKey, VerifyKey], damage: Callable[[Path], object], problem: str
) -> None:
    """An altered manifest, a missing, truncated or foreign signature, and an altered file are each named, and nothing raises."""
    damage(signed)
    (found,) = verify(signed, keys[1])
    assert problem in found
    assert check_files(signed, keys[1])[1] == [found]


def test_another_key_does_not_verify(tmp_path: Path, signed: Path) -> None:
    """A signature is worth nothing under another pair's key."""
    generate(tmp_path / "other")
    (problem,) = verify(signed, VerifyKey.read(tmp_path / "other" / VERIFY_KEY_NAME))
    assert "another key has signed it" in problem


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), line=st.binary(max_size=120))
def test_no_line_is_a_signature_by_chance(keys: tuple[SigningKey, VerifyKey], content: bytes, line: bytes) -> None:
    """Any bytes in place of the signature give a problem and no exception; the right line gives none, and one changed byte does."""
    assert keys[1].problem(content, line) is not None
    right = keys[0].sign(content)
    assert keys[1].problem(content, right) is None
    assert keys[1].problem(content + b"\0", right) is not None
    assert keys[0].public().problem(content, right) is None


def test_generated_files(tmp_path: Path) -> None:
    """The private key is the owner's alone, whatever the umask; a pair that is there is not replaced, nor half of one left."""
    before = os.umask(0)
    try:
        private, public = generate(tmp_path / "new" / "folder")
    finally:
        os.umask(before)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" in private.read_bytes()
    assert b"BEGIN PUBLIC KEY" in public.read_bytes()
    kept = private.read_bytes(), public.read_bytes()
    with pytest.raises(KeyFileError, match="is there already, and is not replaced"):
        generate(private.parent)
    assert kept == (private.read_bytes(), public.read_bytes())
    private.unlink()
    with pytest.raises(KeyFileError, match=f"{VERIFY_KEY_NAME} is there already"):
        generate(private.parent)
    assert [path.name for path in private.parent.iterdir()] == [VERIFY_KEY_NAME]


def _private(key: Any, passphrase: bytes | None = None) -> bytes:
    how = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    return bytes(key.private_bytes(PEM, PKCS8, how))


ED25519, RSA, EC = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
BAD_PRIVATE = {
    "encrypted": (_private(ED25519, b"secret"), r"is encrypted, .* openssl pkey -in"),
    "rsa": (_private(RSA), r"is a key of another type \(RSA\), an Ed25519 key is needed; make a pair with `dwcp-learner keys generate`"),
    "ec": (_private(EC), "is a key of another type"),
    "public": (ED25519.public_key().public_bytes(PEM, PUBLIC), "is a public key, which cannot sign; give the private one"),
    "empty": (b"", "does not hold a private key in PEM form"),
    "truncated": (_private(ED25519)[:60], "does not hold a private key in PEM form"),
    "binary": (b"\x00\xff" * 100, "does not hold a private key in PEM form"),
    "huge": (b"x" * 100_000, "that is not a key"),
}
BAD_PUBLIC = {
    "private": (_private(ED25519), "is a private key; give the public one"),
    "encrypted": (_private(ED25519, b"secret"), "is a private key"),
    "rsa": (RSA.public_key().public_bytes(PEM, PUBLIC), r"is a key of another type \(RSA\)"),
    "empty": (b"", "does not hold a public key in PEM form"),
    "truncated": (ED25519.public_key().public_bytes(PEM, PUBLIC)[:50], "does not hold a public key in PEM form"),
}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [(SigningKey.read, *case) for case in BAD_PRIVATE.values()] + [(VerifyKey.read, *case) for case in BAD_PUBLIC.values()],
    ids=[f"private-{name}" for name in BAD_PRIVATE] + [f"public-{name}" for name in BAD_PUBLIC],
)
def test_key_files_that_cannot_be_used(tmp_path: Path, read: Callable[[Path], object], content: bytes, message: str) -> None:
    """Each says which file, what is wrong, and what to do."""
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=message) as refusal:
        read(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("read", [SigningKey.read, VerifyKey.read])
def test_key_paths_that_are_no_files(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """A missing file, a folder and a pipe are errors at once: nothing waits for a pipe to be written to."""
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
    ):
        with pytest.raises(KeyFileError, match=message):
            read(path)


def test_a_private_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    """A group may be let in, as for a TLS key; the rest of the machine may not."""
    private, _ = generate(tmp_path)
    private.chmod(0o640)
    SigningKey.read(private)
    for mode in (0o644, 0o602):
        private.chmod(mode)
        with pytest.raises(KeyFileError, match="by every user: chmod 600"):
            SigningKey.read(private)


def test_openssl_reads_both_files_and_the_signature(tmp_path: Path, signed: Path) -> None:
    """The formats are the usual ones: another program verifies what this one signs."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not here")
    (tmp_path / "raw.sig").write_bytes(base64.b64decode((signed / SIGNATURE_NAME).read_bytes()))
    arguments = [openssl, "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(tmp_path / "keys" / VERIFY_KEY_NAME)]
    arguments += ["-in", str(signed / MANIFEST_NAME), "-sigfile", str(tmp_path / "raw.sig")]
    assert "Verified" in subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    subprocess.run([openssl, "pkey", "-in", str(tmp_path / "keys" / SIGNING_KEY_NAME), "-noout"], check=True)


@pytest.fixture
def registry(tmp_path: Path, keys: tuple[SigningKey, VerifyKey]) -> Registry:
    """A registry with both keys: the first version unsigned from the time before, the second signed and live."""
    before = Registry(tmp_path / "models")
    before.publish(make_version(before.candidate_folder("job-0"), FIRST), FIRST)
    registry = Registry(tmp_path / "models", *keys)
    registry.publish(make_version(registry.candidate_folder("job-1"), SECOND, seed=1), SECOND)
    return registry


def test_what_is_published_is_signed(registry: Registry, keys: tuple[SigningKey, VerifyKey]) -> None:
    """The registry's own key signs, even if the training left a file of that name; a signature that does not fit is not published."""
    assert verify(registry.folder(SECOND), keys[1]) == []
    candidate = make_version(registry.candidate_folder("job-2"), THIRD)
    (candidate / SIGNATURE_NAME).symlink_to("/etc/passwd")
    registry.publish(candidate, THIRD)
    assert verify(registry.folder(THIRD), keys[1]) == []
    assert not (registry.folder(THIRD) / SIGNATURE_NAME).is_symlink()


def test_an_unsigned_version_is_not_published_where_a_key_is_wanted(registry: Registry, keys: tuple[SigningKey, VerifyKey]) -> None:
    """Nobody would use it: CURRENT stays, and the message names the setting."""
    only_verify = Registry(registry.root, verify_key=keys[1])
    candidate = make_version(registry.candidate_folder("job-2"), THIRD)
    with pytest.raises(RegistryError, match=r"it is not signed .* see models.signing_key"):
        only_verify.publish(candidate, THIRD)
    assert (registry.current(), registry.versions()) == (SECOND, [FIRST, SECOND])


def test_roll_back_only_to_a_signed_version(registry: Registry) -> None:
    """An unsigned version before the live one stays dead while a key is wanted, and can be gone back to without one."""
    with pytest.raises(RegistryError, match="cannot be made live: it is not signed"):
        registry.rollback()
    assert registry.current() == SECOND
    assert Registry(registry.root).rollback() == FIRST


class Reported:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.observer = Observer(lambda event, fields: self.events.append((event, fields)))

    def problems(self) -> list[str]:
        return [fields["problem"] for event, fields in self.events if event == "model_unusable"]


def models_of(registry: Registry, reported: Reported, tmp_path: Path) -> Models:
    return Models(registry, Journal(tmp_path / "journal"), reported.observer, 0.0)


def set_current(registry: Registry, version: str) -> None:
    (registry.root / "CURRENT").write_text(f"{version}\n")


def test_an_untrusted_version_is_neither_followed_nor_trained_from(registry: Registry, tmp_path: Path) -> None:
    """Whoever can write to the folder but has no key cannot put a model in: the daemon stays with the one before, and says why, once."""
    reported = Reported()
    models = models_of(registry, reported, tmp_path)
    live = models.follow(now=True)
    assert live is not None
    assert (live.version, models.current()) == (SECOND, SECOND)
    set_current(registry, FIRST)
    for _ in range(3):
        assert models.follow(now=True) is None
        assert models.current() == SECOND, "the next training would start from an unsigned version, and its result be signed"
    assert models.live == live
    (problem,) = reported.problems()
    assert FIRST in problem
    assert "it is not signed" in problem
    assert models.predictor(FIRST) is None


def test_a_version_that_could_not_be_checked_is_checked_again(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses once does not make a signed version untrusted for good; one that is not signed stays so however often."""
    reported = Reported()
    models = models_of(registry, reported, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Registry, "trusted_digests", lambda *_: (_ for _ in ()).throw(RegistryError("Input/output error")))
        assert (models.follow(now=True), models.current()) == (None, None)
    assert models.current() is None, "it is not read at every pass"
    monkeypatch.setattr("daemon.ingest.live_model.RETRY_S", 0.0)
    live = models.follow(now=True)
    assert live is not None
    assert (live.version, models.current()) == (SECOND, SECOND)
    set_current(registry, FIRST)
    for _ in range(3):
        assert (models.follow(now=True), models.current()) == (None, SECOND)
    assert len(reported.problems()) == 2


def test_without_a_trusted_version_there_is_none(registry: Registry, tmp_path: Path) -> None:
    """A daemon that starts on an unsigned version has no model, as before its first one: it trains a new one without a parent."""
    set_current(registry, FIRST)
    reported = Reported()
    models = models_of(registry, reported, tmp_path)
    assert (models.follow(now=True), models.current(), models.live) == (None, None, None)
    assert len(reported.problems()) == 1


def test_what_was_changed_after_the_check_is_not_loaded(registry: Registry) -> None:
    """A file that is replaced between verifying and loading is found: the bytes that are loaded are the ones that were signed."""
    digests = registry.trusted_digests(SECOND)
    folder = registry.folder(SECOND)
    assert Predictor.load(folder, digests=digests).version == SECOND
    for name, other in ((core_name(SECOND), core_name(FIRST)), (metadata_name(SECOND), metadata_name(FIRST))):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes((registry.folder(FIRST) / other).read_bytes())
        with pytest.raises(PredictorError, match="has changed since it was verified"):
            Predictor.load(folder, digests=digests)
        (folder / name).write_bytes(kept)
    assert Predictor.load(folder, digests=digests).version == SECOND


def test_signing_needs_a_manifest(tmp_path: Path, keys: tuple[SigningKey, VerifyKey]) -> None:
    """Without one there is nothing to sign, and nothing is written."""
    with pytest.raises(DocumentError, match=r"MANIFEST\.json is missing"):
        sign_manifest(tmp_path, keys[0])
    assert not (tmp_path / SIGNATURE_NAME).exists()


def test_keys_in_the_configuration(tmp_path: Path) -> None:
    """Both, the signing key alone or none; a verify key alone, two that are no pair, and a missing file are refused by name."""
    private, public = generate(tmp_path / "one")
    _, other = generate(tmp_path / "two")

    def registry(**models: Any) -> Registry:
        return registry_with_keys(Config(models={"directory": tmp_path, **models}))  # type: ignore[arg-type]

    assert registry().signing_key is registry().verify_key is None
    assert registry(signing_key=private).signing_key is not None
    assert registry(signing_key=private, verify_key=public).verify_key is not None
    for models, message in (
        ({"verify_key": public}, "models.verify_key is set and models.signing_key is not"),
        ({"signing_key": private, "verify_key": other}, "is not the public key of models.signing_key"),
        ({"signing_key": tmp_path / "none"}, "models.signing_key: .*cannot be read"),
        ({"signing_key": private, "verify_key": private}, "models.verify_key: .* is a private key"),
    ):
        with pytest.raises(ConfigError, match=message):
            registry(**models)


def test_a_daemon_without_keys_does_not_load_cryptography() -> None:
    """11 MB that only those pay who sign."""
    check = "import sys, daemon.wiring, daemon.cli; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_keys_generate(cli: Cli, tmp_path: Path) -> None:
    """The output names both files and what to do with each; a second time, and an impossible folder, are exit code 1."""
    code, out, _ = cli("keys", "generate", "--folder", tmp_path / "[new]")
    assert code == 0
    for words in (SIGNING_KEY_NAME, "models.signing_key", VERIFY_KEY_NAME, "models.verify_key"):
        assert words in out
    assert out.count(str(tmp_path / "[new]")) == 2
    code, _, err = cli("keys", "generate", "--folder", tmp_path / "[new]")
    assert (code, "is not replaced" in err) == (1, True)
    (tmp_path / "file").write_text("")
    code, _, err = cli("keys", "generate", "--folder", tmp_path / "file")
    assert (code, "cannot be written" in err) == (1, True)


def test_models_verify_with_a_key(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    """--public-key: each version that is not signed by it is named, with exit code 1; a bad key file is an error of its own."""
    public = tmp_path / "keys" / VERIFY_KEY_NAME
    assert cli("models", "verify", SECOND, "--models", registry.root, "--public-key", public)[:2] == (0, f"{SECOND}: sound and signed\n")
    code, out, _ = cli("models", "verify", "--models", registry.root, "--public-key", public)
    assert code == 1
    assert [line.partition(":")[0] for line in out.splitlines() if "not signed" in line] == [FIRST]
    code, out, _ = cli("models", "verify", "--models", registry.root)
    assert code == 0
    assert "the signature was not checked" in out
    code, _, err = cli("models", "verify", "--models", registry.root, "--public-key", tmp_path / "none")
    assert (code, "--public-key: " in err) == (3, True)


def test_the_configured_key_counts_in_commands(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    """models.verify_key holds for verify and rollback, also where --models names the folder."""
    config = tmp_path / "dwcp.toml"
    config.write_text(f'[models]\nverify_key = "{tmp_path / "keys" / VERIFY_KEY_NAME}"\n')
    assert cli("models", "verify", "--models", registry.root, "--config", config)[0] == 1
    code, _, err = cli("models", "rollback", "--models", registry.root, "--config", config)
    assert (code, "it is not signed" in err) == (1, True)
    code, _, err = cli("check-config", "--config", config)
    assert (code, "models.signing_key is not" in err) == (3, True)
