"""What /metrics and `systemctl status` show of a loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.loop import Loop


def show(loop: Loop) -> None:
    """Sets the gauges and the service manager's status line to what is now."""
    observer, partitions, lag = loop.observer, loop.partitions, loop.source.lag()
    observer.links.set(partitions.links)
    observer.split_links.set(partitions.spread.split)
    observer.moved_links.set(partitions.spread.moved)
    observer.count_keyless(loop.source.keyless())
    observer.watched_links.set(partitions.watched_links)
    observer.open_rows.set(loop.open_rows)
    observer.incidents.set(loop.regions.open_incidents)
    observer.late_samples.set(loop.regions.late)
    observer.alerts_in_a_week.set(loop.regions.opened_in_a_week)
    observer.event_time.set(partitions.event_time_s if math.isfinite(partitions.event_time_s) else math.nan)
    held = loop.source.held()
    observer.held.set(held)
    observer.lag.set(lag + held if lag is not None else math.nan)  # unknown is not 0: an alert on lag must not be silent then
    observer.training_words = training_words(loop)
    loop.notifier.status(status(loop, lag))


def status(loop: Loop, lag: int | None) -> str:
    """One line: what is waited for, what is there, and how far behind it is."""
    trouble = loop.health.not_ready()
    version = loop.models.live.version if loop.models.live is not None else "none"
    return (
        ("" if loop.source.healthy() else "not connected to the source, the log says why: ")
        + ("not ready, /readyz and the log say why: " if trouble and loop.source.healthy() else "")
        + f"{loop.partitions.links} links, model {version}, {loop.regions.open_incidents} open incidents, "
        + training_words(loop)
        + (f", {lag} records behind" if lag else "")
    )


def training_words(loop: Loop) -> str:
    """How far a training is, or what the next one waits for."""
    training = loop.training
    if (running := training.progress()) is not None:
        return running.words()
    if training.publication_s:
        return "publishing"
    return "training starts" if training.busy else f"training waits for {training.decision.waiting_for or 'the first records'}"
