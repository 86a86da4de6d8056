"""The registry that a configuration describes, with its keys read. `cryptography` is imported only where there is a key: 11 MB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config.load import Config, ConfigError
from model.registry.versions import Registry

if TYPE_CHECKING:
    from model.version.signing import VerifyKey


def registry_with_keys(config: Config) -> Registry:
    """Raises ConfigError where a key cannot be used, where only the public one is given, or where the two are no pair."""
    models = config.models
    if models.signing_key is None:
        if models.verify_key is not None:
            raise ConfigError(
                "models.verify_key is set and models.signing_key is not: this daemon's own versions would be unsigned, and never used; "
                "set both (`dwcp-learner keys generate` makes a pair)"
            )
        return Registry(models.directory)
    from model.version.signing import KeyFileError, SigningKey

    try:
        signing_key = SigningKey.read(models.signing_key)
    except KeyFileError as error:
        raise ConfigError(f"models.signing_key: {error}") from error
    verify_key = verify_key_from(models.verify_key, "models.verify_key")
    if verify_key is not None and verify_key.problem(b"pair", signing_key.sign(b"pair")):
        raise ConfigError(f"models.verify_key ({models.verify_key}) is not the public key of models.signing_key ({models.signing_key})")
    return Registry(models.directory, signing_key, verify_key)


def verify_key_from(path: Path | None, setting: str) -> VerifyKey | None:
    """The public key in a file, None for no file. Raises ConfigError, with the name of the setting, where it cannot be used."""
    if path is None:
        return None
    from model.version.signing import KeyFileError, VerifyKey

    try:
        return VerifyKey.read(path)
    except KeyFileError as error:
        raise ConfigError(f"{setting}: {error}") from error
