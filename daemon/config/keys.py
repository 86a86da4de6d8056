"""The registry that a configuration describes, with its keys. `cryptography` (11 MB) is imported only if there is a key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config.load import Config, ConfigError
from model.registry.versions import Registry

if TYPE_CHECKING:
    from model.version.signing import VerifyKey


def registry_with_keys(config: Config) -> Registry:
    """Return the registry.

    Raises:
        ConfigError: a key cannot be used, only the public one is set, or the two are not a pair.
    """
    models = config.models
    if models.signing_key is None:
        if models.verify_key is not None:
            raise ConfigError(
                "models.verify_key is set and models.signing_key is not: this daemon's own versions would not be signed, and never used; "
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
        raise ConfigError(
            f"models.verify_key ({models.verify_key}) is not the public key of models.signing_key ({models.signing_key}); "
            "set the public key of that pair"
        )
    return Registry(models.directory, signing_key, verify_key)


def verify_key_from(path: Path | None, setting: str) -> VerifyKey | None:
    """Return the public key in a file; None for no file.

    Args:
        setting: name of the setting, for the message.

    Raises:
        ConfigError: the key cannot be used.
    """
    if path is None:
        return None
    from model.version.signing import KeyFileError, VerifyKey

    try:
        return VerifyKey.read(path)
    except KeyFileError as error:
        raise ConfigError(f"{setting}: {error}") from error
