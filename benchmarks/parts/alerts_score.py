"""Score the alerts of a fleet against what was planted in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_ROW_S: Final = 60.0
BEFORE_S: Final = 1800.0
"""Seconds by which an alert may date a change too early."""
AFTER_S: Final = 7200.0
"""Seconds after its end in which what a change leaves behind belongs to it: links go back, and models follow."""
RECALL_ROWS: Final = 30
LATENESS_ROWS: Final = 2
"""Rows for which the daemon waits for late records."""
SIZE_WITHIN: Final = 0.2
_KINDS: Final = {
    "step": {"shift"}, "ramp": {"ramp", "shift"}, "variance": {"spread"}, "reroute": {"shift"}, "loss_burst": {"shift", "spread"},
}  # fmt: skip
"""What a planted change may be called."""


def incidents_of(alerts: Sequence[dict[str, Any]], *, absorbed: bool = False) -> list[list[dict[str, Any]]]:
    """Return the alerts by incident, oldest first.

    Args:
        absorbed: with incidents that became part of a larger one, as a person has been told of them; otherwise they belong to that.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        found.setdefault(alert["incident"], []).append(alert)
    return [own for own in found.values() if absorbed or own[-1]["outcome"] not in ("region", "fleet")]


def false_incidents(alerts: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the openings of incidents of the network that no planted change explains."""

    def explained(opened: dict[str, Any]) -> bool:
        return any(
            opened["region"] in (None, one["region"]) and one["start_s"] - BEFORE_S <= opened["opened_s"] <= one["end_s"] + AFTER_S
            for one in truth
        )

    return [own[0] for own in incidents_of(alerts) if not explained(own[0])]


def detection(alerts: Sequence[dict[str, Any]], one: dict[str, Any]) -> dict[str, Any]:
    """Return how a planted change was reported.

    Args:
        one: its truth, see `alerts_run.written`.

    Returns:
        delay (rows, None: missed), recall (of links, within RECALL_ROWS), size_right and named_right (None: missed).
    """
    planted, own = set(one["links"]), []
    for incident in incidents_of(alerts, absorbed=True):
        first = incident[0]
        at_once = one["start_s"] - BEFORE_S <= first["since_s"] and one["start_s"] <= first["opened_s"] <= one["end_s"]
        if first["region"] in (None, one["region"]) and at_once and planted & set(incident[-1]["links"]):
            own.append(incident)
    named = [incident for incident in own if any(signal["signal"] in one["signals"] for alert in incident for signal in alert["signals"])]
    if not named:
        return {"name": one["name"], "first_day": one["first_day"], "delay": None, "recall": 0.0, "size_right": None, "named_right": None}
    best = min(named, key=lambda incident: (incident[0]["scope"] == "link" and len(planted) > 1, incident[0]["opened_s"]))
    until_s = one["start_s"] + (RECALL_ROWS + LATENESS_ROWS) * _ROW_S
    found: set[str] = set()
    for incident in named:
        for alert in incident:
            if alert["time_s"] <= until_s:
                found |= set(alert["links"]) & planted
    first, opened_s = best[0]["signals"][0], min(incident[0]["opened_s"] for incident in named)
    return {
        "name": one["name"], "first_day": one["first_day"], "delay": (opened_s - one["start_s"]) / _ROW_S,
        "recall": len(found) / len(planted), "size_right": _size_right(best, one),
        "named_right": first["signal"] in one["signals"] and first["change"] in _KINDS[one["kind"]],
    }  # fmt: skip


def _size_right(incident: Sequence[dict[str, Any]], one: dict[str, Any]) -> bool | None:
    """Return whether the size that was sent last is right to SIZE_WITHIN; None for a change that is not a step."""
    if one["kind"] != "step":
        return None
    for alert in reversed(incident):
        for signal in alert["signals"]:
            if signal["signal"] in one["signals"] and signal["change"] in ("shift", "ramp"):
                ratio = signal["size"] / one["sizes"][signal["signal"]]
                return 1.0 - SIZE_WITHIN <= ratio <= 1.0 + SIZE_WITHIN
    return False
