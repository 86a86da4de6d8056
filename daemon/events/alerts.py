"""Events for subscribers: drift alerts and model announcements as CloudEvents. A replay sends the same ids."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from drift.messages import IncidentChange, SignalChange
from features.columns import COLUMN
from features.telemetry import TARGETS
from model.registry.choice import Choice
from streams.events import Event, event_id

LARGE_SIGMA: Final = 3.0
"""Standard deviations from which a change of most links of a region is critical."""
SEVERITIES: Final = ("info", "warning", "critical")
RETRAINING_TYPE: Final = "dwcp.drift.retraining"
MODEL_TYPE: Final = "dwcp.model"
UNITS: Final = {name: COLUMN[name].unit for name in TARGETS}
_NAMES: Final = {name: COLUMN[name].label for name in TARGETS}
_FAULTS: Final[dict[str, str]] = {
    "missing": "{name} is not measured any more",
    "constant": "{name} does not change any more",
    "unit": "{name} is {size:.3g} times what it was, as in another unit",
    "category": "{name} has a value that the model does not know",
    "clock": "the clock is {size:.0f} s off",
}


def drift_event(change: IncidentChange, source: str) -> Event:
    """Return the alert about one change of an incident.

    Args:
        source: who sends it, for example "dwcp-learner/dwcp.telemetry".
    """
    data: dict[str, Any] = {
        "incident": change.id,
        "change": change.kind,
        "sequence": change.sequence,
        "scope": change.scope,
        "group": change.group,
        "severity": severity(change),
        "region": change.region or None,
        "opened_s": change.opened_s,
        "since_s": change.since_s,
        "summary": summary(change),
        "signals": [asdict(signal) | {"unit": UNITS.get(signal.signal, "")} for signal in change.signals],
        "link_types": list(change.link_types),
        "regions": list(change.regions),
        "affected_regions": change.affected_regions,
        "links": list(change.links),
        "affected_links": change.affected_links,
        "watched_links": change.watched_links,
        "outcome": change.outcome or None,
    }
    subject = {"fleet": "fleet", "region": change.region, "link": f"{change.region}/{''.join(change.links[:1])}"}[change.scope]
    return _event(f"dwcp.drift.{change.kind}", source, subject, change.time_s, data, change.id, change.sequence, change.kind)


def _event(kind: str, source: str, subject: str, time_s: float, data: dict[str, Any], *cause: object) -> Event:
    """Return an event. cause: the values that its id is derived from."""
    return Event(id=event_id(*cause), type=kind, source=source, subject=subject, time_s=time_s, data=data)


def severity(change: IncidentChange) -> str:
    """Return how urgent a change is.

    "info" if the incident is closed; "critical" if it is of the whole fleet, or of most links of a region by LARGE_SIGMA or more; else
    "warning".
    """
    if change.kind == "closed":
        return "info"
    if change.group == "data" or change.scope == "link":
        return "warning"
    large = any(abs(signal.size_sigma) >= LARGE_SIGMA for signal in change.signals)
    most = 2 * change.affected_links > change.watched_links
    return "critical" if change.scope == "fleet" or (large and most) else "warning"


def retraining_event(incident: str, answer: str, version: str, source: str, now_s: float) -> Event:
    """Return the event about the training that an incident has asked for.

    Args:
        incident: id of the incident.
        answer: "started", "published", "refused" or "failed".
        now_s: UTC seconds.
    """
    data = {"incident": incident, "retraining": answer, "version": version}
    return _event(RETRAINING_TYPE, source, incident, now_s, data, incident, version, answer)


def model_event(version: str, source: str, published_s: float, manifest: dict[str, Any], live: bool) -> Event:
    """Return the announcement of a published version.

    Args:
        published_s: UTC seconds.
        manifest: as in its MANIFEST.json.
        live: False if a person has pinned another version.
    """
    data = {"version": version, "live": live} | {key: manifest.get(key) for key in ("parent", "reason", "verdict", "number", "files")}
    return _event(f"{MODEL_TYPE}.published", source, version, published_s, data, "model", version)


def choice_event(choice: Choice, source: str) -> Event:
    """Return the event about a person's choice of the live version. Every member sends it, under one id."""
    data = {"version": choice.version, "number": choice.number, "pinned": choice.pins}
    cause = "choice", choice.version, choice.kind, choice.number
    return _event(f"{MODEL_TYPE}.{choice.kind}", source, choice.version, choice.time_s, data, *cause)


def summary(change: IncidentChange) -> str:
    """Return one line for a person: "eu: RTT 38 to 56 ms (+18) on 37 of 40 monitored links". Signals of different links have their own
    number."""
    where = {
        "fleet": f"{change.affected_regions} regions",
        "region": change.region,
        "link": f"{change.region}, link {''.join(change.links[:1])}",
    }
    apart = any(signal.links != change.affected_links for signal in change.signals)
    parts = [f"{_part(signal)} on {signal.links}" if apart else _part(signal) for signal in change.signals]
    what = ", ".join(parts) or "a change that an older release found"
    links = ""
    if change.scope != "link":
        links = f"{', in all' if apart else ''} on {change.affected_links} of {change.watched_links} monitored links"
    outcome = f"; {change.outcome.replace('_', ' ')}" if change.outcome else ""
    return f"{where[change.scope]}: {what}{links}{outcome}"


def _part(signal: SignalChange) -> str:
    name, unit = _NAMES.get(signal.signal, signal.signal), f" {UNITS.get(signal.signal, '')}".rstrip()
    if signal.change in _FAULTS:
        return _FAULTS[signal.change].format(name=name, size=signal.size)
    if signal.change == "spread":
        return f"{name} spreads {signal.size_sigma:.2g} times as wide"
    if signal.change == "model_error":
        return f"{name} forecasts off by {abs(signal.size):.3g}{unit} while it is as it was"
    size, slowly = f"{signal.size:+.3g}", ", slowly" if signal.change == "ramp" else ""
    if signal.before is None or signal.after is None:
        return f"{name} {size}{unit}{slowly}"
    return f"{name} {signal.before:.3g} to {signal.after:.3g}{unit} ({size}){slowly}"
