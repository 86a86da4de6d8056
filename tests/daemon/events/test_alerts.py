"""Events of the drift topic: valid by the schema that is checked in, with words for a person, and with ids that a replay repeats."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from daemon.commands.documents import alert_schema
from daemon.events.alerts import drift_event, retraining_event, severity, summary
from drift.messages import IncidentChange, SignalChange

RTT = SignalChange("rtt_ms", "shift", 1, 37, 1.4, 18.2, ("cusum",))
CHANGE = IncidentChange(
    "opened", "1f", 0, "region", "network", "eu", 1_767_580_000.0, 1_767_579_940.0, 1_767_579_000.0, (RTT,), ("metro",), ("eu",), 1,
    ("a|b|metro", "c|d|metro"), 37, 40, "",
)  # fmt: skip


def signal(**changed: Any) -> IncidentChange:
    return replace(CHANGE, signals=(replace(RTT, **changed),))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (CHANGE, "eu: RTT +18.2 ms on 37 of 40 monitored links"),
        (signal(change="ramp", size=-3.0), "eu: RTT -3 ms, slowly on 37 of 40 monitored links"),
        (signal(change="spread", size_sigma=2.5), "eu: RTT spreads 2.5 times as wide on 37 of 40 monitored links"),
        (signal(change="model_error"), "eu: RTT forecasts off by 18.2 ms while it is as it was on 37 of 40 monitored links"),
        (signal(signal="queue_depth", change="missing"), "eu: queue_depth is not measured any more on 37 of 40 monitored links"),
        (signal(change="unit", size=1000.0), "eu: RTT is 1e+03 times what it was, as in another unit on 37 of 40 monitored links"),
        (replace(CHANGE, kind="closed", outcome="model_replaced"), "eu: RTT +18.2 ms on 37 of 40 monitored links; model replaced"),
        (replace(CHANGE, scope="link", links=("a|b|metro",)), "eu, link a|b|metro: RTT +18.2 ms"),
        (
            replace(CHANGE, scope="fleet", region="", regions=("eu", "us"), affected_regions=2),
            "2 regions: RTT +18.2 ms on 37 of 40 monitored links",
        ),
        (
            replace(CHANGE, signals=(replace(RTT, links=9), replace(RTT, signal="packet_loss", size=0.019, links=30))),
            "eu: RTT +18.2 ms on 9, loss +0.019 on 30, in all on 37 of 40 monitored links",
        ),
        (replace(CHANGE, signals=()), "eu: a change that an older release found on 37 of 40 monitored links"),
    ],
)
def test_an_alert_says_what_changed_where_and_by_how_much(change: IncidentChange, words: str) -> None:
    """Sizes are in natural units, and the event fits the schema."""
    assert summary(change) == words
    event = json.loads(drift_event(change, "dwcp-learner/test").encode())
    jsonschema.validate(event, alert_schema())
    assert event["data"]["since_s"] < event["data"]["opened_s"]
    assert event["id"] == json.loads(drift_event(change, "dwcp-learner/other").encode())["id"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (CHANGE, "warning"),
        (signal(size_sigma=-3.5), "critical"),
        (replace(signal(size_sigma=3.5), affected_links=5), "warning"),
        (replace(signal(size_sigma=3.5), scope="link"), "warning"),
        (replace(CHANGE, group="data"), "warning"),
        (replace(CHANGE, scope="fleet"), "critical"),
        (replace(CHANGE, kind="closed", scope="fleet"), "info"),
    ],
)
def test_severity(change: IncidentChange, expected: str) -> None:
    assert severity(change) == expected


def test_a_training_is_told_to_its_incident() -> None:
    """The event fits the schema, and each answer is sent once."""
    events = [retraining_event("1f", answer, "v20260101_000000", "s", 1e9) for answer in ("started", "published", "refused", "failed")]
    for event in events:
        jsonschema.validate(json.loads(event.encode()), alert_schema())
    assert len({event.id for event in events}) == 4
