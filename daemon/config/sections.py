"""The sections of the configuration: each key with its default, its bounds and, if its name does not explain it, a description."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from daemon.config.local_time import require_country
from daemon.training.cron import cron_trigger
from features.store import DEFAULT_LINKS_MAX
from features.telemetry import DEFAULT_LINK_KEY, KEY_COLUMNS
from model.spec import architecture as architectures
from model.spec.architecture import COVERAGE, DEFAULT_HORIZONS, require_horizons
from model.spec.local_time import require_zone
from streams.events import DEAD_LETTER_TOPIC, DRIFT_TOPIC, MODELS_TOPIC, TELEMETRY_TOPIC
from streams.kafka.connection.option_values import typed
from streams.kafka.connection.options import KafkaOptions

NEVER: Final = 2**62
"""Value of training.rows_min for a daemon that trains nothing: more rows than any buffer has."""
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}", re.ASCII)
"""Names that Kafka allows."""


def _legal_topic(name: str) -> str:
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} is not a valid Kafka topic name; use 1 to 249 letters, digits, '.', '_' and '-', but not '.' or '..'")
    return name


def _not_blank(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty; give a value, or leave the key out for its default")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("contains a NUL character, which a name or path cannot contain; remove it")
    return value


Topic = Annotated[str, AfterValidator(_legal_topic)]
Text = Annotated[str, BeforeValidator(_not_blank)]
ZoneName = Annotated[str, AfterValidator(require_zone)]
CalendarName = Annotated[str, AfterValidator(require_country)]
Location = Annotated[Path, BeforeValidator(_not_blank)]
"""A file or folder. An empty one would mean the working directory."""


if TYPE_CHECKING:
    ArchitectureName: TypeAlias = str
else:  # mypy reads only names that are written out
    ArchitectureName = Literal[tuple(architectures.ARCHITECTURES)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class KafkaSection(_Section):
    bootstrap_servers: str = "localhost:9092"
    topic: Topic = TELEMETRY_TOPIC
    group_id: Text = "dwcp-learner"
    max_records: int = Field(5000, gt=0, description="records of one poll: large enough that its fixed cost does not count")
    accept_lost_records: bool = Field(
        False, description="continue, with an event, if the next records were deleted or have changed (a new topic, an unclean election)"
    )
    options: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict, description="TLS, SASL and any further option of the Kafka client, by its own name"
    )

    def client_options(self) -> KafkaOptions:
        """Return the options of the Kafka client.

        Raises:
            ValueError: an option could not work; the message names it.
        """
        try:
            values = {name: typed(name, value) for name, value in self.options.items()}
            return KafkaOptions.from_mapping({"bootstrap_servers": self.bootstrap_servers, **values})
        except ValueError as error:
            name = re.split(r"[\s:]", str(error), maxsplit=1)[0]
            section = "kafka.options." if name in self.options else "kafka." if name in KafkaSection.model_fields else ""
            raise ValueError(f"{section}{error}") from error

    @field_validator("options", mode="before")
    @classmethod
    def _plain(cls, options: Any) -> Any:
        """Refuse a list or a table in one sentence, instead of one for each type that the value might be."""
        for name, value in options.items() if isinstance(options, dict) else ():
            if value is not None and not isinstance(value, str | int | float | bool):
                kind = {"list": "a list", "dict": "a table"}.get(type(value).__name__, f"a {type(value).__name__}")
                raise ValueError(f"kafka.options.{name} is {kind}; set it to a text, a number, true or false")
        return options


class EventsSection(_Section):
    """Destination of drift alerts, model announcements and dead letters."""

    to: Literal["kafka", "file", "both"] = "kafka"
    drift_topic: Topic = DRIFT_TOPIC
    models_topic: Topic = MODELS_TOPIC
    dead_letter_topic: Topic = DEAD_LETTER_TOPIC
    folder: Location | None = Field(None, description="of the NDJSON files; default: events/ in the state directory")
    file_mb_max: int = Field(256, gt=0, description="size at which a file becomes NAME.1.ndjson, which is replaced, and a new one begins")


class LinksSection(_Section):
    key: tuple[str, ...] = Field(DEFAULT_LINK_KEY, description="columns that identify a link; empty: one merged series")
    gap_multiple: float = Field(
        5.0,
        gt=1,
        le=1e6,
        description="a pause of more than this many intervals starts a new window, unless such pauses are the rhythm of the link",
    )
    max: int = Field(
        DEFAULT_LINKS_MAX,
        gt=0,
        lt=2**31,
        description="links of one partition, some 5 kB each; of more, those unseen for longest are forgotten",
    )

    @field_validator("key")
    @classmethod
    def _known(cls, key: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(key) - set(KEY_COLUMNS)):
            raise ValueError(f"unknown columns {', '.join(unknown)}; a link key is made of {', '.join(KEY_COLUMNS)}")
        return key


class LocalTimeSection(_Section):
    """Local time of the regions: the hours and days off by which links remember their day. The default is UTC, without holidays."""

    zone: ZoneName = Field("UTC", description="time zone of regions that zones does not name, as Europe/Berlin")
    zones: dict[str, ZoneName] = Field(default_factory=dict, description="time zone by region")
    holidays: CalendarName = Field(
        "", description="public holidays count as weekend: a country (DE), a part of one (DE-BY) or an .ics file; empty: none"
    )
    region_holidays: dict[str, CalendarName] = Field(
        default_factory=dict, description="the same by region; regions that are not named here have those of holidays"
    )


class ForecastSection(_Section):
    """What versions forecast. A change holds from the next training on, which then starts as a first version."""

    horizons_rows: tuple[int, ...] = Field(
        DEFAULT_HORIZONS, min_length=1, description="rows ahead that each version forecasts, ascending from 1"
    )
    coverage: float = Field(COVERAGE, ge=0.5, le=0.99, description="share of what is measured between lower and upper forecast")

    @field_validator("horizons_rows")
    @classmethod
    def _horizons(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        require_horizons(horizons)
        return horizons


class DriftSection(_Section):
    watched_per_region: int = Field(
        100, gt=0, description="monitored links of a region and partition, at most; bounds the cost of forecasts"
    )
    watched_max: int = Field(1000, gt=0, description="monitored links of one partition, at most")
    watched_always: tuple[str, ...] = Field((), description='patterns of names of links that are monitored in any case, as "node-17|*"')
    false_alerts_per_week: float = Field(
        1.0, gt=0, le=1000, description="budget of alerts without a cause for 2,000 monitored links; a smaller one makes alerts later"
    )
    quorum_links: int = Field(3, gt=0, description="links of a region that must alarm for an incident of the region, at least")
    quorum_share: float = Field(0.02, gt=0, le=1, description="share of a region's monitored links that must alarm, at least")
    lateness_s: float = Field(60.0, ge=0, description="how far links of one partition may lag behind each other in event time")
    idle_s: float = Field(60.0, gt=0, description="a partition whose event time stands still for this long does not delay the others")
    shed_above_lag: int = Field(200_000, gt=0, description="records behind at which forecasts stop until the stream has caught up")


class BufferSection(_Section):
    rows_max: int = Field(5_000_000, gt=0, description="most rows that are kept, about 60 bytes each on disk")
    age_max_s: float = Field(90 * 86_400.0, gt=0, description="a quarter: the weekly cycle some twelve times")
    open_rows_max: int = Field(1_000_000, gt=0, description="unsealed rows at which the source is paused, if the disk refuses them")


class ExpertSection(_Section):
    """Settings of the training of a network: the table [training.expert]. The defaults were measured; few users need to change them."""

    batch_size: int = Field(128, gt=0, le=4096, description="windows of one step; at 4,096 a step takes some 2 GB")
    patience: int = Field(5, gt=0, description="epochs without a better validation loss after which a training ends")
    epoch_windows_max: int | None = Field(8192, gt=0, description="windows of one epoch: 64 steps, some 10-40 s on two cores")
    recent_windows_max: int | None = Field(200_000, gt=0, description="newest windows that a training learns from")
    replay_windows: int = Field(4096, ge=0, description="older windows mixed in, against forgetting")
    windows_min: int = Field(256, gt=0, description="fewer new windows than this are too little data")
    gate_windows_min: int = Field(200, gt=0, description="fewer windows than this prove nothing against the live version")
    seed: int = Field(42, ge=0, lt=2**32, description="the same seed gives the same weights on the same machine")


class TrainingSection(_Section):
    schedule: str = Field("0 3 * * *", description="cron, UTC; empty: none. A training is due then, and starts if there is enough new data")
    interval_s: float | None = Field(None, gt=0, description="time between two trainings: instead of a schedule, or beside it")
    rows_min: int = Field(20_000, gt=0, description=f"rows before the first version; {NEVER}: nothing is trained")
    new_rows_min: int = Field(5_000, gt=0, description="rows since the last training before the next one")
    drift_rows_min: int = Field(5_000, gt=0, description="rows since the drift began before it is worth training on it")
    cooldown_s: float = Field(1800.0, ge=0, description="between the end of a training and the next; a failed one waits twice as long")
    time_limit_s: float = Field(3600.0, gt=0, description="a training that takes longer is ended; the live version stays")
    drift_time_budget_s: float = Field(
        40.0, gt=0, description="for the epochs after a drift: the closed-form correction comes first, and soon beats perfect"
    )
    architecture: ArchitectureName = Field(
        architectures.DEFAULT, description=f"{architectures.SUMMARY}. A training with another one than before starts as a first version"
    )
    epochs: int = Field(30, gt=0, le=10_000, description="most epochs of one training")
    threads: int = Field(0, ge=0, le=1024, description="0: as many as there are processors")
    expert: ExpertSection = ExpertSection()

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str) -> str:
        if schedule.strip():
            cron_trigger(schedule)
        return schedule.strip()


class StateSection(_Section):
    directory: Location = Path("state")
    member: str = Field("main", pattern=r"^[A-Za-z0-9_]{1,64}$", description="name of this daemon, if several share the directory")
    checkpoint_interval_s: float = Field(30.0, gt=0, description="time between checkpoints; after a kill at most this much is read again")


class ModelsSection(_Section):
    directory: Location = Path("models")
    keep: int = Field(10, gt=0)
    follow_interval_s: float = Field(2.0, gt=0, description="how often CURRENT is read for a rollback or another member's version")
    signing_key: Location | None = Field(None, description="private Ed25519 key (PEM) that signs what is published; none: it is not signed")
    verify_key: Location | None = Field(
        None, description="public key (PEM) that must verify a version before it is used; none: any version is used"
    )


class HttpSection(_Section):
    host: Text = Field("127.0.0.1", description="address of this machine to listen on; 0.0.0.0 or :: for all of them")
    port: int = Field(9108, ge=0, le=65535, description="0: any free port")
    enabled: bool = True


class LogSection(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")
