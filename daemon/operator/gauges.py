"""The gauges of /metrics and the line of `systemctl status`."""

from __future__ import annotations

import math

from daemon.operator.facts import Facts
from daemon.operator.observer import Observer


def show(facts: Facts, observer: Observer) -> None:
    """Set the gauges. An unknown lag is NaN and not 0: an alert on the lag must not become silent."""
    observer.links.set(facts.links)
    observer.split_links.set(facts.split_links)
    observer.moved_links.set(facts.moved_links)
    observer.count_keyless(facts.keyless)
    observer.watched_links.set(facts.monitored_links)
    observer.open_rows.set(facts.open_rows)
    observer.incidents.set(facts.open_incidents)
    observer.late_samples.set(facts.late_samples)
    observer.alerts_in_a_week.set(facts.alerts_in_a_week)
    observer.strictness.set(facts.strictness)
    observer.event_time.set(facts.event_time_s if math.isfinite(facts.event_time_s) else math.nan)
    observer.held.set(facts.held)
    observer.lag.set(math.nan if facts.behind is None else facts.behind)


def status_line(facts: Facts, *, ready: bool) -> str:
    """Return one line for the service manager: problems, version and links, and how far behind the daemon is."""
    trouble = "" if ready else "not ready, see /readyz and the log: "
    return (
        (trouble if facts.connected else "not connected to the source, see the log: ")
        + f"{facts.links} links, model {facts.live_version or 'none'}, {facts.open_incidents} open incidents, {facts.training}"
        + (f", {facts.lag} records behind" if facts.lag else "")
    )
