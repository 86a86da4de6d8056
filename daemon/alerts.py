"""What subscribers hear: drift alerts and model announcements as CloudEvents with ids that a replay repeats."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drift.messages import IncidentChange
from streams.events import Event, event_id


def drift_event(change: IncidentChange, source: str) -> Event:
    """One change of an incident. source: who tells, for example "dwcp-learner/dwcp.telemetry"."""
    data: dict[str, Any] = {
        "incident": change.id,
        "change": change.kind,
        "sequence": change.sequence,
        "region": change.region,
        "opened_s": change.opened_s,
        "cause": change.cause,
        "metrics": [asdict(metric) for metric in change.metrics],
        "link_types": list(change.link_types),
        "affected_links": change.affected_links,
        "watched_links": change.watched_links,
    }
    return Event(
        id=event_id(change.id, change.sequence, change.kind),
        type=f"dwcp.drift.{change.kind}",
        source=source,
        subject=change.region,
        time_s=change.time_s,
        data=data,
    )


def model_event(version: str, source: str, published_s: float, manifest: dict[str, Any]) -> Event:
    """The announcement of a published version. manifest: as in its MANIFEST.json."""
    return Event(
        id=event_id("model", version),
        type="dwcp.model.published",
        source=source,
        subject=version,
        time_s=published_s,
        data={"version": version, **{key: manifest.get(key) for key in ("parent", "reason", "verdict", "files")}},
    )


def summary(change: IncidentChange) -> str:
    """One line for a person."""
    metrics = ", ".join(
        f"{metric.metric} {metric.size:+.3g} ({metric.links} links)" if metric.links else f"{metric.metric} (region level)"
        for metric in change.metrics
    )
    return f"{change.region}: {metrics}; {change.affected_links} of {change.watched_links} watched links, by {change.cause}"
