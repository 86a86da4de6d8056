"""The state of the loop at the end of a pass, as plain values: the only input of health, gauges, page and log of long states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.training.progress import Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """State of the daemon at one moment. A frozen record, so that any thread may read it.

    Args:
        now_s: when it was collected, monotonic seconds.
        ingested: records were ingested in this pass.
        waits: nothing is to be read: a finite source has ended, or the stream waits for a training.
        silent_s: see `Polled.silent_s`.
        connected: the source can return records.
        paused: the source is paused because unsealed rows, or events that are not delivered, have reached their limit.
        lag: records behind the end of the assigned partitions; None if unknown.
        held: records behind an open transaction.
        keyless: records without a key since the start, of a topic with several partitions.
        problems: reasons why no record is ingested, each with what to do. A restart would not help.
        troubles: other reasons why the daemon is not ready, which do not explain a standstill.
        checkpoint_since_s: when the running checkpoint began, monotonic seconds; None if none is running.
        publication_since_s: the same of a publication.
        open_rows: rows in memory that no segment holds yet.
        event_time_s: newest event time of any partition, UTC seconds; -inf before the first record.
        links, monitored_links, split_links, moved_links: number of links; see the metrics of these names.
        open_incidents: incidents that are open.
        late_samples: messages that came after their bucket had closed.
        alerts_in_a_week: incidents that opened in the last week of event time.
        strictness: how much stricter than usual incidents are opened, 0 to 3, because there were far more than the budget has.
        live_version: version that forecasts come from; None if there is none yet.
        pinned_version: version that a person has pinned; None if a training may publish.
        trust: by region, the mean weight of the version in what is published, 0 to 1.
        running: the running training; None if none is running.
        training_busy: a training is due or running, or its candidate is being published.
        training_waits_for: the condition that the next training waits for; "" if it is not known yet.
    """

    now_s: float
    ingested: bool
    waits: bool
    silent_s: float
    connected: bool
    paused: bool
    lag: int | None
    held: int
    keyless: int
    problems: tuple[str, ...]
    troubles: tuple[str, ...]
    checkpoint_since_s: float | None
    publication_since_s: float | None
    open_rows: int
    event_time_s: float
    links: int
    monitored_links: int
    split_links: int
    moved_links: int
    open_incidents: int
    late_samples: int
    alerts_in_a_week: int
    strictness: int
    live_version: str | None
    pinned_version: str | None
    trust: Mapping[str, float]
    running: Running | None
    training_busy: bool
    training_waits_for: str

    @property
    def checkpoint_s(self) -> float:
        """Seconds for which a checkpoint has been running; 0 if none is."""
        return 0.0 if self.checkpoint_since_s is None else self.now_s - self.checkpoint_since_s

    @property
    def publication_s(self) -> float:
        """Seconds for which a version has been verified and written; 0 if none is."""
        return 0.0 if self.publication_since_s is None else self.now_s - self.publication_since_s

    @property
    def behind(self) -> int | None:
        """Records behind, with those that an open transaction holds; None if unknown."""
        return None if self.lag is None else self.lag + self.held

    @property
    def training(self) -> str:
        """Progress of the running training, or the condition that the next one waits for, in words."""
        if self.running is not None:
            return self.running.words()
        if self.publication_since_s is not None:
            return "publishing"
        return "training starts" if self.training_busy else f"training waits for {self.training_waits_for or 'the first records'}"
