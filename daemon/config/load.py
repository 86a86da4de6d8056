"""Configuration: one TOML file and DWCP_ environment variables over it. Unknown keys are refused, by name."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from daemon.config.sections import (
    NEVER,
    BufferSection,
    DriftSection,
    EventsSection,
    HttpSection,
    KafkaSection,
    LinksSection,
    LogSection,
    ModelsSection,
    StateSection,
    TrainingSection,
)

MOST_BYTES: Final = 1 << 20
"""A hundred times a configuration with every setting."""
ENV_PREFIX: Final = "DWCP_"
ENV_DELIMITER: Final = "__"


class ConfigError(Exception):
    """The configuration cannot be used. The message names the file, the key, what is wrong and what to do."""


class Config(BaseSettings):
    """All sections. Environment: DWCP_KAFKA__TOPIC is kafka.topic."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, extra="forbid", frozen=True, nested_model_default_partial_update=True
    )

    kafka: KafkaSection = KafkaSection()
    events: EventsSection = EventsSection()
    links: LinksSection = LinksSection()
    drift: DriftSection = DriftSection()
    buffer: BufferSection = BufferSection()
    training: TrainingSection = TrainingSection()
    state: StateSection = StateSection()
    models: ModelsSection = ModelsSection()
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - given by name by pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment is above the file, which comes in as arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _own_topics(self) -> Self:
        """A daemon that read its own dead letters would refuse them again, for ever."""
        events = self.events
        if events.to != "file" and self.kafka.topic in (events.drift_topic, events.models_topic, events.dead_letter_topic):
            raise ValueError(f"kafka.topic {self.kafka.topic!r} is a topic that events go to as well: telemetry needs one of its own")
        return self


class FixedConfig(Config):
    """A configuration that says itself what it is: no DWCP_ variable goes over it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - given by name by pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def reload(path: Path | None) -> Config:
    """The same again, while the daemon runs: nothing is waited for, so a pipe is refused. Raises ConfigError."""
    if path is not None and path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is not a regular file, and can be read only at the start; restart the daemon instead")
    return load(path)


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration from a TOML file, or a pipe (None: only defaults and environment). Raises ConfigError."""
    document = _document(path) if path is not None else {}
    _refuse_unknown_variables(os.environ if environment is None else environment)
    try:
        config = Config(**document)
        config.kafka.client_options()
        _check_together(config)
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, found['loc']))}: {found['msg']}".replace("  : ", "  ") for found in error.errors())
        raise ConfigError(
            f"{path or 'the environment'}: the configuration is not valid:\n{problems}\nsee: dwcp-learner schema config"
        ) from None
    except SettingsError as error:
        example = f"{ENV_PREFIX}LINKS{ENV_DELIMITER}KEY='[\"node_id\"]'"
        raise ConfigError(f"the environment: {error}; lists and tables are written as JSON, for example {example}") from error
    except ValueError as error:
        raise ConfigError(f"{path or 'the environment'}: the configuration is not valid: {error}") from error
    return config


def _check_together(config: Config) -> None:
    """Raises ValueError, with the settings, where one keeps the other from ever taking effect."""
    training, buffer = config.training, config.buffer
    if buffer.rows_max < training.rows_min < NEVER:
        raise ValueError(
            f"training.rows_min ({training.rows_min}) is more than buffer.rows_max ({buffer.rows_max}): no version would ever be trained; "
            f"lower rows_min or raise rows_max (or set rows_min to {NEVER}, to train nothing on purpose)"
        )


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(f"{path}: has more than {MOST_BYTES:,} bytes: not a configuration file; use another one with --config")
        return tomllib.loads(content.decode("utf-8-sig"))  # with the mark that some editors put first
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give another file with --config") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets: not TOMLDecodeError
        raise ConfigError(f"{path}: is no valid TOML ({error})") from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """pydantic-settings passes over variables that it does not know, so a misspelt one would silently keep the default."""
    known = {
        f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper()
        for section, field in Config.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    } | {f"{ENV_PREFIX}{section}".upper() for section in Config.model_fields}
    for name in sorted(environment):
        upper = name.upper()
        nested = upper.startswith((f"{ENV_PREFIX}KAFKA{ENV_DELIMITER}OPTIONS{ENV_DELIMITER}",))
        if upper.startswith(ENV_PREFIX) and upper not in known and not nested and upper != f"{ENV_PREFIX}CONFIG":
            raise ConfigError(
                f"{name}: no such setting; a variable is {ENV_PREFIX}SECTION{ENV_DELIMITER}KEY, for example DWCP_KAFKA__TOPIC"
            )
