"""Configuration: one TOML file and DWCP_ environment variables over it. Unknown keys are refused, by name."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from daemon.config.sections import (
    NEVER,
    BufferSection,
    DriftSection,
    EventsSection,
    ForecastSection,
    HttpSection,
    KafkaSection,
    LinksSection,
    LocalTimeSection,
    LogSection,
    ModelsSection,
    StateSection,
    TrainingSection,
)

MOST_BYTES: Final = 1 << 20
"""Largest file that is read as a configuration: a hundred times one with every setting."""
ENV_PREFIX: Final = "DWCP_"
ENV_DELIMITER: Final = "__"
REMOVED: Final = frozenset({
    "drift.watched_share", "drift.quorum_window_s", "drift.quiet_s", "training.learning_rate", "training.fine_tune_learning_rate",
})  # fmt: skip
"""Settings of older releases that are constants now."""


class ConfigError(Exception):
    """The configuration cannot be used. The message names the file, the key, what is wrong and what to do."""


class Config(BaseSettings):
    """The whole configuration. The variable DWCP_KAFKA__TOPIC sets kafka.topic."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, extra="forbid", frozen=True, nested_model_default_partial_update=True
    )

    kafka: KafkaSection = KafkaSection()
    events: EventsSection = EventsSection()
    links: LinksSection = LinksSection()
    local_time: LocalTimeSection = LocalTimeSection()
    forecast: ForecastSection = ForecastSection()
    drift: DriftSection = DriftSection()
    buffer: BufferSection = BufferSection()
    training: TrainingSection = TrainingSection()
    state: StateSection = StateSection()
    models: ModelsSection = ModelsSection()
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment override the file, whose values come as arguments."""
        return sources["env_settings"], sources["init_settings"]

    @model_validator(mode="after")
    def _own_topics(self) -> Self:
        """Refuse a topic of events as the source: a daemon that reads its own dead letters refuses them again, for ever."""
        events = self.events
        if events.to != "file" and self.kafka.topic in (events.drift_topic, events.models_topic, events.dead_letter_topic):
            raise ValueError(
                f"kafka.topic {self.kafka.topic!r} is a topic that events are sent to as well; give telemetry a topic of its own"
            )
        return self


class FixedConfig(Config):
    """A configuration that no DWCP_ variable overrides."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        return (sources["init_settings"],)


def reload(path: Path | None) -> Config:
    """Load the configuration again while the daemon runs. A pipe is refused, because it could be waited for.

    Raises:
        ConfigError: see `load`.
    """
    if path is not None and path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is not a regular file, and can be read only at the start; restart the daemon instead")
    return load(path)


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Config:
    """Load the configuration.

    Args:
        path: TOML file, or a pipe; None: only defaults and environment.
        environment: variables whose names are checked; None: those of the process.

    Raises:
        ConfigError: the configuration cannot be read, or is not valid.
    """
    document = _document(path) if path is not None else {}
    _refuse_unknown_variables(os.environ if environment is None else environment)
    try:
        config = Config(**document)
        config.kafka.client_options()
        _check_together(config)
    except ValidationError as error:
        problems = "\n".join(f"  {_problem('.'.join(map(str, found['loc'])), found)}" for found in error.errors())
        raise ConfigError(
            f"{path or 'the environment'}: the configuration is not valid:\n{problems}\nsee: dwcp-learner schema config"
        ) from None
    except SettingsError as error:
        example = f"{ENV_PREFIX}LINKS{ENV_DELIMITER}KEY='[\"node_id\"]'"
        raise ConfigError(f"the environment: {error}; lists and tables are written as JSON, for example {example}") from error
    except ValueError as error:
        raise ConfigError(f"{path or 'the environment'}: the configuration is not valid: {error}") from error
    return config


def _problem(setting: str, found: Mapping[str, Any]) -> str:
    if found["type"] == "extra_forbidden":
        return _unknown(setting)
    return f"{setting}: {found['msg']}" if setting else str(found["msg"])


def _unknown(setting: str) -> str:
    """Return the message about a setting that does not exist, with the closest name of its section, or of a section."""
    if setting in REMOVED:
        return f"{setting}: is not a setting any more, it has a fixed value now; delete it"
    place, _, key = setting.rpartition(".")
    fields: dict[str, Any] = Config.model_fields
    for section in filter(None, place.split(".")):
        fields = getattr(getattr(fields.get(section), "annotation", None), "model_fields", {})
    moved = [name for name, field in fields.items() if place and key in getattr(field.annotation, "model_fields", {})]
    if moved:
        return f"{setting}: is in the table [{place}.{moved[0]}] now; move it there"
    close = get_close_matches(key, fields, 1)
    return f"{setting}: there is no such setting; " + (f"did you mean {close[0]}?" if close else "delete it, or correct its name")


def _check_together(config: Config) -> None:
    """Raise ValueError, with the settings, if one keeps the other from ever taking effect."""
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
            raise ConfigError(f"{path}: has more than {MOST_BYTES:,} bytes, and is not a configuration; name another file with --config")
        return tomllib.loads(content.decode("utf-8-sig"))  # with the byte order mark that some editors put first
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); mend its permissions, or name another file with --config") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets: not TOMLDecodeError
        raise ConfigError(f"{path}: is not valid TOML ({error}); correct that line, or name another file with --config") from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable that sets nothing. pydantic-settings ignores it, so a misspelt one would keep the default."""
    known = {f"{ENV_PREFIX}{name}".upper() for name in _names(Config)}
    for name in sorted(environment):
        upper = name.upper()
        nested = upper.startswith((f"{ENV_PREFIX}KAFKA{ENV_DELIMITER}OPTIONS{ENV_DELIMITER}",))
        if upper.startswith(ENV_PREFIX) and upper not in known and not nested and upper != f"{ENV_PREFIX}CONFIG":
            setting = upper.removeprefix(ENV_PREFIX).replace(ENV_DELIMITER, ".").lower()
            what = _unknown(setting).removeprefix(f"{setting}: ")
            raise ConfigError(f"{name}: {what} (a variable is {ENV_PREFIX}SECTION{ENV_DELIMITER}KEY, for example DWCP_KAFKA__TOPIC)")


def _names(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the variables of a section and of the sections in it, without the common prefix."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}{ENV_DELIMITER}")
